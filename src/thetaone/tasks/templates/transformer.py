"""A small GPT on text. Change what says CHANGE; keep the names.

thetaone check  task.py                              does every layer learn alike at every width?
thetaone plan   task.py --width 256 --budget 50%     what memory costs in time
thetaone transfer task.py --target 256 --memory 256MiB --report out/    all of it, and trained
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

HEAD = 16  # size of a head: fixed, so that there are more heads in a wider model
CONTEXT = 64  # characters that a prediction may see
BATCH = 16
N_BYTES = 256  # text is read as bytes: no tokenizer, any language
TEXT: Path | None = None  # CHANGE: Path(__file__).with_name("input.txt"), your own text

# What is swept when the command line says nothing. Small models are enough: the rate transfers.
defaults = {
    "widths": (32, 64, 128),
    "lrs": tuple(2.0**power for power in range(-10, -3)),  # a grid in octaves
    "seeds": (0, 1),  # two or more give an interval
    "steps": 100,  # fewer, and the best rate of narrow models is not yet that of wide ones
}

# How it is trained, here and at the target. Leave a line out to leave the choice to the defaults.
optimizer = "AdamW"
schedule = "warmup-cosine:0.1"  # constant, warmup-linear, wsd; the share of warm-up after a colon
clip = 1.0  # the largest global norm of the gradients


class Block(nn.Module):
    """Causal attention and a perceptron, each added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape: batch, position, width."""
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, d // HEAD, HEAD)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Embeddings, a list of blocks (which is what memory is planned over), a readout."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(N_BYTES, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, N_BYTES, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the next byte at every position."""
        x = self.bytes(text) + self.places.weight[: text.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x))


def model(width: int, depth: int = 2) -> nn.Module:
    """The model of one width (a multiple of HEAD) and depth."""
    if width % HEAD:
        raise ValueError(f"width={width}: need a multiple of HEAD={HEAD}")
    return GPT(width, depth)


@functools.cache
def text() -> Tensor:
    """The whole text as bytes: without a TEXT the language reference that every Python brings."""
    from pydoc_data import topics

    whole = TEXT.read_bytes() if TEXT else "\n".join(topics.topics.values()).encode()
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()


def windows(part: Tensor, seed: int) -> Iterator[Tensor]:
    """Random stretches of a text, a byte longer than the context: its last is only predicted."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(part) - CONTEXT, (BATCH, 1), generator=generator)
        yield part[starts + torch.arange(CONTEXT + 1)]


def batches(seed: int) -> Iterator[Tensor]:
    """Batches without end, the same for the same seed, from the first nine tenths of the text."""
    return windows(text()[: len(text()) * 9 // 10], seed)


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """What is minimized, as a scalar."""
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def evaluate(model: nn.Module) -> float:
    """Loss on the last tenth of the text, which is not trained on."""
    held_out = windows(text()[len(text()) * 9 // 10 :], 0)
    with torch.no_grad():
        return sum(loss(model, next(held_out)).item() for _ in range(8)) / 8
