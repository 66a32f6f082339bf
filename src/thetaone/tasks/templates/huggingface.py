"""A model of Hugging Face's from its config. Change what says CHANGE; keep the names.

thetaone check  task.py                              does every layer learn alike at every width?
thetaone plan   task.py --width 256 --budget 50%     what memory costs in time
thetaone transfer task.py --target 256 --memory 256MiB --report out/    all of it, and trained
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

HEAD = 16  # size of a head: fixed, so that there are more heads in a wider model
CONTEXT = 64  # tokens that a prediction may see
BATCH = 16
N_TOKENS = 256  # CHANGE: len(tokenizer); here text is read as bytes
TEXT: Path | None = None  # CHANGE: Path(__file__).with_name("input.txt"), your own text

# What is swept when the command line says nothing. Small models are enough: the rate transfers.
defaults = {
    "widths": (32, 64, 128),
    "lrs": tuple(2.0**power for power in range(-11, -4)),  # a grid in octaves
    "seeds": (0, 1),  # two or more give an interval
    "steps": 60,
}

# How it is trained, here and at the target. Leave a line out to leave the choice to the defaults.
optimizer = "AdamW"
schedule = "warmup-cosine:0.1"  # constant, warmup-linear, wsd; the share of warm-up after a colon
clip = 1.0  # the largest global norm of the gradients


def model(width: int, depth: int = 2) -> nn.Module:
    """The model of one width (a multiple of HEAD) and depth, with new weights.

    CHANGE: any config; every size that belongs to the width must be made from ``width``.
    """
    if width % HEAD:
        raise ValueError(f"width={width}: need a multiple of HEAD={HEAD}")
    config = LlamaConfig(
        vocab_size=N_TOKENS, max_position_embeddings=CONTEXT,
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth,
        num_attention_heads=width // HEAD, num_key_value_heads=width // HEAD,
        tie_word_embeddings=False, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@functools.cache
def text() -> Tensor:
    """The whole text as tokens: without a TEXT the language reference that every Python brings.

    CHANGE: with a tokenizer, ``torch.tensor(tokenizer(TEXT.read_text())["input_ids"])``.
    """
    from pydoc_data import topics

    whole = TEXT.read_bytes() if TEXT else "\n".join(topics.topics.values()).encode()
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()


def windows(part: Tensor, seed: int) -> Iterator[Tensor]:
    """Random stretches of a text."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(part) - CONTEXT, (BATCH, 1), generator=generator)
        yield part[starts + torch.arange(CONTEXT)]


def batches(seed: int) -> Iterator[Tensor]:
    """Batches without end, the same for the same seed, from the first nine tenths of the text."""
    return windows(text()[: len(text()) * 9 // 10], seed)


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """What is minimized, as a scalar; the model shifts the labels by itself."""
    return model(input_ids=batch, labels=batch).loss


def evaluate(model: nn.Module) -> float:
    """Loss on the last tenth of the text, which is not trained on."""
    held_out = windows(text()[len(text()) * 9 // 10 :], 0)
    with torch.no_grad():
        return sum(loss(model, next(held_out)).item() for _ in range(8)) / 8
