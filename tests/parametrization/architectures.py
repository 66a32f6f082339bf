"""Hugging Face architectures as tasks: unmodified models, built from a config, on random data.

``width`` is the hidden size; the number of heads grows with it (``HEAD`` features each) unless the
entry says ``heads grow``. Initializers are the library's own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]

HEAD, LAYERS, VOCABULARY, LENGTH, ROWS = 16, 2, 96, 12, 4


RENAMED = ("Mixtral", "ViT")  # by transformers 5; earlier experts are called as tokens hit them


def require_names(name: str) -> None:
    """Skip an architecture whose modules have other names in the release at hand."""
    if name in RENAMED:
        pytest.importorskip("transformers", minversion="5")


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFace:
    """A task: one architecture, one configuration at every width.

    Attributes:
        cls: Name of the model class in ``transformers``.
        config: Width to the options of its config.
        batch: Generator to a batch.
        choices: What ``parametrize`` has to be told.
    """

    cls: str
    config: Callable[[int], dict[str, Any]]
    batch: Callable[[torch.Generator], Batch]
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def model(self, width: int) -> nn.Module:
        cls = getattr(pytest.importorskip("transformers"), self.cls)
        config = cls.config_class(**self.config(width))
        config._attn_implementation = "eager"
        return cls(config)

    def batches(self, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield self.batch(generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).loss


def tokens(generator: torch.Generator) -> Batch:
    ids = torch.randint(4, VOCABULARY, (ROWS, LENGTH), generator=generator)
    return {"input_ids": ids, "labels": ids}


def masked(generator: torch.Generator) -> Batch:
    """Every third token hidden (id 3), and to be found again."""
    batch = tokens(generator)
    hidden = torch.arange(LENGTH) % 3 == 0
    labels = batch["labels"].masked_fill(~hidden, -100)
    return {"input_ids": batch["input_ids"].masked_fill(hidden, 3), "labels": labels}


def images(generator: torch.Generator) -> Batch:
    return {
        "pixel_values": torch.randn(ROWS, 3, 16, 16, generator=generator),
        "labels": torch.randint(10, (ROWS,), generator=generator),
    }


def speech(generator: torch.Generator) -> Batch:
    return {
        "input_features": torch.randn(ROWS, 20, 24, generator=generator),
        "labels": torch.randint(4, VOCABULARY, (ROWS, LENGTH), generator=generator),
    }


def decoder(width: int, **more: Any) -> dict[str, Any]:
    """A Llama-like config: gated MLP, grouped queries with half as many keys as queries."""
    heads = width // HEAD
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "use_cache": False,
        **more,
    }


def growing(width: int, **more: Any) -> dict[str, Any]:
    """Four heads at every width: their size grows."""
    return decoder(width, num_attention_heads=4, num_key_value_heads=2, **more)


def encoder(width: int, **more: Any) -> dict[str, Any]:
    """A BERT-like config."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": width // HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        **more,
    }


def gpt2(width: int, **more: Any) -> dict[str, Any]:
    return {
        "n_embd": width,
        "n_head": width // HEAD,
        "n_layer": LAYERS,
        "n_positions": 64,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "use_cache": False,
        **more,
    }


def neox(width: int) -> dict[str, Any]:
    options = decoder(width)
    del options["num_key_value_heads"]
    return options


def t5(width: int, **more: Any) -> dict[str, Any]:
    return {
        "d_model": width,
        "d_ff": 2 * width,
        "d_kv": HEAD,
        "num_heads": width // HEAD,
        "num_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "decoder_start_token_id": 0,
        "use_cache": False,
        **more,
    }


def vit(width: int) -> dict[str, Any]:
    options = encoder(width)
    del options["vocab_size"], options["max_position_embeddings"], options["pad_token_id"]
    return {**options, "image_size": 16, "patch_size": 4, "num_labels": 10}


def whisper(width: int) -> dict[str, Any]:
    return {
        "d_model": width,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": width // HEAD,
        "decoder_attention_heads": width // HEAD,
        "encoder_ffn_dim": 2 * width,
        "decoder_ffn_dim": 2 * width,
        "num_mel_bins": 20,
        "max_source_positions": 12,
        "max_target_positions": 32,
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        "use_cache": False,
    }


def mamba(width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": LAYERS,
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "use_cache": False,
    }


ARCHITECTURES: dict[str, HuggingFace] = {
    "Llama": HuggingFace(cls="LlamaForCausalLM", config=decoder, batch=tokens),
    "Llama, tied": HuggingFace(
        cls="LlamaForCausalLM", config=lambda w: decoder(w, tie_word_embeddings=True), batch=tokens
    ),
    "Llama, heads grow": HuggingFace(cls="LlamaForCausalLM", config=growing, batch=tokens),
    "GPT-2": HuggingFace(cls="GPT2LMHeadModel", config=gpt2, batch=tokens),
    "GPT-2, untied": HuggingFace(
        cls="GPT2LMHeadModel", config=lambda w: gpt2(w, tie_word_embeddings=False), batch=tokens
    ),
    "GPT-NeoX": HuggingFace(cls="GPTNeoXForCausalLM", config=neox, batch=tokens),
    "Qwen2": HuggingFace(cls="Qwen2ForCausalLM", config=decoder, batch=tokens),
    "Qwen3": HuggingFace(
        cls="Qwen3ForCausalLM", config=lambda w: decoder(w, head_dim=HEAD), batch=tokens
    ),
    "Qwen3, heads grow": HuggingFace(
        cls="Qwen3ForCausalLM", config=lambda w: growing(w, head_dim=w // 4), batch=tokens
    ),
    "Mistral": HuggingFace(cls="MistralForCausalLM", config=decoder, batch=tokens),
    "Gemma": HuggingFace(
        cls="GemmaForCausalLM", config=lambda w: decoder(w, head_dim=HEAD), batch=tokens
    ),
    "Mixtral": HuggingFace(
        cls="MixtralForCausalLM", config=lambda w: decoder(w, num_local_experts=4), batch=tokens
    ),
    "BERT": HuggingFace(cls="BertForMaskedLM", config=encoder, batch=masked),
    "BERT, heads grow": HuggingFace(
        cls="BertForMaskedLM", config=lambda w: encoder(w, num_attention_heads=4), batch=masked
    ),
    "RoBERTa": HuggingFace(cls="RobertaForMaskedLM", config=encoder, batch=masked),
    "T5": HuggingFace(cls="T5ForConditionalGeneration", config=t5, batch=tokens),
    "T5 1.1": HuggingFace(
        cls="T5ForConditionalGeneration",
        config=lambda w: t5(w, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        batch=tokens,
    ),
    "ViT": HuggingFace(cls="ViTForImageClassification", config=vit, batch=images),
    "Whisper": HuggingFace(
        cls="WhisperForConditionalGeneration",
        config=whisper,
        batch=speech,
        choices={"frozen": "skip"},  # its encoder's positions are fixed sinusoids
    ),
    "Mamba": HuggingFace(cls="MambaForCausalLM", config=mamba, batch=tokens),
}
