"""Unmodified Hugging Face models: their own loops, keyword arguments, masks and caches."""

import copy
from typing import Any

import pytest
import torch

from thetaone.errors import RecomputationError
from thetaone.rematerialization import profile, rematerialize, revolve

transformers: Any = pytest.importorskip("transformers")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 5}
HEADS = {"num_attention_heads": 4, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1}


def llama() -> Any:
    config = transformers.LlamaConfig(**SMALL, **HEADS, num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Any:
    sizes = {"n_embd": 32, "n_layer": 5, "n_head": 4, "n_positions": 32, "vocab_size": 64}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)
    return transformers.GPT2LMHeadModel(config)


def bert() -> Any:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, **HEADS))


def vit() -> Any:
    config = transformers.ViTConfig(
        **SMALL, num_attention_heads=4, image_size=16, patch_size=4, hidden_dropout_prob=0.1
    )
    return transformers.ViTForImageClassification(config)


def text() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, 64, (2, 12), generator=generator)
    return {"input_ids": tokens, "labels": tokens}


def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pixel_values": torch.randn(2, 3, 16, 16, generator=generator),
        "labels": torch.tensor([0, 1]),
    }


def vit_layers(model: Any) -> Any:
    """Its blocks, by the name that transformers 5 or an earlier release gives them."""
    return model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer


MODELS = {
    "llama": (llama, text, "model.layers"),
    "gpt2": (gpt2, text, "transformer.h"),
    "bert": (bert, text, "bert.encoder.layer"),
    "vit": (vit, images, None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_bitwise_equal(name: str) -> None:
    make, inputs, blocks = MODELS[name]
    torch.manual_seed(0)
    plain = make().train()
    ours = copy.deepcopy(plain)
    schedule = revolve(profile(ours, blocks=blocks, repeats=1, **inputs()), 3)
    assert max(schedule.executions) >= 3  # regions inside regions
    rematerialize(ours, schedule, blocks=blocks)
    calls = [0] * 5
    layers = ours.get_submodule(blocks) if blocks else vit_layers(ours)
    places = {block: index for index, block in enumerate(layers)}

    def count(module: torch.nn.Module, _: object) -> None:
        if module in places:
            calls[places[module]] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    losses: list[torch.Tensor] = []
    for model in (plain, ours):
        torch.manual_seed(7)
        losses.append(model(**inputs()).loss)
        losses[-1].backward()
    handle.remove()
    assert torch.equal(*losses)
    assert tuple(calls) == schedule.executions
    for (where, a), b in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), where
        if a.grad is not None and b.grad is not None:
            assert torch.equal(a.grad, b.grad), where


@pytest.mark.filterwarnings("ignore")
def test_a_cache_that_stayed_empty_is_not_read_in_a_later_forward() -> None:
    """The plain model goes on where the first forward ended; without its past it would not."""
    torch.manual_seed(0)
    model, inputs = llama().train(), text()
    rematerialize(model, sample=inputs, budget=0.8)
    model(**inputs, use_cache=True).loss.backward()
    first = model(**inputs, use_cache=True)  # with a cache of its own
    first.loss.backward()
    with pytest.raises(RecomputationError, match=r"the DynamicCache of an earlier forward"):
        model(**inputs, past_key_values=first.past_key_values)
