"""Roles and factors of Hugging Face architectures, written down by hand."""

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, require_names

import thetaone as t1
from thetaone.records import Prescription

BLOCK = "model.layers.1."


def prescription(name: str) -> Prescription:
    """From width 64 to 256, on shapes alone."""
    task = ARCHITECTURES[name]
    with torch.device("cpu" if name == "Gemma" else "meta"):  # its scale of √width is a buffer
        base, model = task.model(64), task.model(256)
    return t1.prescribe(model, base=t1_blueprint(base), **task.choices)


def t1_blueprint(base: torch.nn.Module) -> Any:
    from thetaone.parametrization.reading import read_blueprint

    return read_blueprint(base, measure=False)


# name: {parameter: (role, Adam rate factor, forward factor folded in)}
EXPECTED: dict[str, dict[str, tuple[str, float, float]]] = {
    "Llama": {
        "model.embed_tokens.weight": ("input", 1, 1),
        BLOCK + "self_attn.q_proj.weight": ("hidden", 1 / 4, 1),
        BLOCK + "self_attn.k_proj.weight": ("hidden", 1 / 4, 1),
        BLOCK + "self_attn.v_proj.weight": ("hidden", 1 / 4, 1),
        BLOCK + "mlp.gate_proj.weight": ("hidden", 1 / 4, 1),
        BLOCK + "mlp.down_proj.weight": ("hidden", 1 / 4, 1),
        BLOCK + "input_layernorm.weight": ("vector", 1, 1),
        "lm_head.weight": ("output", 1 / 4, 1),
    },
    # a tied readout's factor is folded into the last norm
    "Llama, tied": {
        "model.embed_tokens.weight": ("input", 1, 1),
        "model.norm.weight": ("vector", 1 / 4, 1 / 4),
    },
    # 1/d attention: half of the exponent is in the forward pass already
    "Llama, heads grow": {BLOCK + "self_attn.q_proj.weight": ("hidden", 1 / 8, 1 / 2)},
    "Qwen3, heads grow": {
        BLOCK + "self_attn.q_proj.weight": ("hidden", 1 / 4, 1),
        BLOCK + "self_attn.q_norm.weight": ("vector", 1 / 2, 1 / 2),
        BLOCK + "self_attn.k_norm.weight": ("vector", 1, 1),
    },
    "GPT-2": {
        "transformer.wte.weight": ("input", 1, 1),
        "transformer.ln_f.weight": ("vector", 1 / 4, 1 / 4),
        "transformer.ln_f.bias": ("vector", 1 / 4, 1 / 4),
        "transformer.wpe.weight": ("input", 1, 1),
        "transformer.h.1.attn.c_attn.weight": ("hidden", 1 / 4, 1),
        "transformer.h.1.mlp.c_proj.weight": ("hidden", 1 / 4, 1),
        "transformer.h.1.mlp.c_fc.bias": ("vector", 1, 1),
    },
    # √width on the embedding: half folded into the weight, half stays before the readout, for
    # the last norm has a gain 1 + g
    "Gemma": {
        "model.embed_tokens.weight": ("input", 1 / 2, 1 / 2),
        "model.norm.weight": ("vector", 1, 1),
    },
    "T5": {
        "shared.weight": ("input", 1, 1),
        "decoder.final_layer_norm.weight": ("vector", 1 / 2, 1 / 2),
    },
    "Mixtral": {
        BLOCK + "mlp.gate.weight": ("bottleneck", 1 / 4, 1),
        BLOCK + "mlp.experts.gate_up_proj": ("hidden", 1 / 4, 1),
        BLOCK + "mlp.experts.down_proj": ("hidden", 1 / 4, 1),
    },
    "BERT": {
        "bert.embeddings.word_embeddings.weight": ("input", 1, 1),
        "cls.predictions.transform.LayerNorm.weight": ("vector", 1 / 4, 1 / 4),
        "bert.embeddings.position_embeddings.weight": ("input", 1, 1),
        "cls.predictions.bias": ("fixed", 1, 1),
    },
    "ViT": {
        "vit.embeddings.patch_embeddings.projection.weight": ("input", 1, 1),
        "vit.embeddings.position_embeddings": ("vector", 1, 1),
        "vit.embeddings.cls_token": ("vector", 1, 1),
        "classifier.weight": ("output", 1 / 4, 1),
    },
    "Whisper": {
        "model.encoder.conv1.weight": ("input", 1, 1),
        "model.encoder.conv2.weight": ("hidden", 1 / 4, 1),
        "model.decoder.embed_tokens.weight": ("input", 1, 1),
        "model.decoder.layer_norm.bias": ("vector", 1 / 4, 1 / 4),
    },
    "Mamba": {
        "backbone.layers.1.mixer.A_log": ("vector", 1, 1),
        "backbone.layers.1.mixer.D": ("vector", 1, 1),
        "backbone.layers.1.mixer.conv1d.weight": ("input", 1, 1),
        "backbone.layers.1.mixer.dt_proj.weight": ("hidden", 1 / 4, 1),
        "backbone.layers.1.mixer.in_proj.weight": ("hidden", 1 / 4, 1),
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_roles_by_hand(name: str) -> None:
    require_names(name)
    found = prescription(name)
    expected = EXPECTED[name]
    assert {
        key: (found[key].role, found[key].lr_factor, found[key].fold) for key in expected
    } == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_trained_parameter_has_a_rule(name: str) -> None:
    require_names(name)
    found = prescription(name)
    assert all(rule.lr_factor <= 1 for rule in found.rules)
    assert any(rule.role == "hidden" for rule in found.rules)
