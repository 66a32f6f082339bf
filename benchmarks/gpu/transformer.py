"""A decoder of about 300 M parameters, built from a config, and one step of its training.

It ends with its last block: what a plan counts is the chain of blocks, and nothing else is in the
step whose peak is held against it.
"""

from functools import partial
from typing import Any

import torch
from row import Step
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

BLOCKS = "layers"


def decoder(device: torch.device, *, toy: bool) -> LlamaModel:
    """24 layers of width 1024 in bfloat16 (309 M parameters); toy: 4 of width 64."""
    sizes: dict[str, Any] = {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
    }
    if toy:
        sizes = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4}
    config = LlamaConfig(
        **sizes,
        num_attention_heads=sizes["hidden_size"] // 64,
        vocab_size=64 if toy else 1024,
        use_cache=False,
    )
    with device:
        model = LlamaModel(config).to(torch.bfloat16).train()
    model.set_submodule("norm", nn.Identity())
    return model


def tokens(device: torch.device, *, toy: bool) -> dict[str, Tensor]:
    shape = (2, 64) if toy else (8, 1024)
    return {"input_ids": torch.randint(64, shape, device=device)}


def training_step(model: nn.Module, inputs: dict[str, Tensor]) -> Step:
    """Forward and backward from a fixed gradient of the last features."""
    with torch.no_grad():
        gradient = torch.randn_like(model(**inputs).last_hidden_state)
    return partial(_step, model, inputs, gradient)


def _step(model: nn.Module, inputs: dict[str, Tensor], gradient: Tensor) -> None:
    model(**inputs).last_hidden_state.backward(gradient)
