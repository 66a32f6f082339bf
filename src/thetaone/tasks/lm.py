"""The bundled text task: a character-level pre-norm transformer on real English.

The text is ``pydoc_data.topics``, the language reference that every Python ships (about 0.46 MB):
no download, no dependency. The module itself is the task: ``model``, ``batches``, ``loss``,
``evaluate``, ``defaults``.

Shapes: b batch, t position, d width, h head, k head size, v character.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thetaone.errors import InputError

HEAD_SIZE = 16  # fixed, so that attention logits keep their scale and heads grow with width
DEPTH = 2
BATCH = 24
CONTEXT = 64
N_CHARACTERS = 97  # newline, the 95 printable ASCII characters, and one for all others
VALIDATION_FRACTION = 0.1
VALIDATION_BATCHES = 8

# Enough to see the optimum stay (µP) and walk away (SP) within a minute or two on two cores; at
# width 256 training keeps 77 MiB (25 of weights, gradients and moments, 52 of activations).
defaults: Mapping[str, Any] = {
    "widths": (32, 64, 128),
    "steps": 40,
    "lrs": tuple(2.0**power for power in range(-10, -2)),
    "seeds": (0, 1),
}


class Attention(nn.Module):
    """Normalized input, causal self-attention, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """The input plus what its earlier positions say."""
        b, t, d = x_btd.shape
        qkv = self.qkv(self.norm(x_btd)).view(b, t, 3, d // HEAD_SIZE, HEAD_SIZE)
        q_bhtk, k_bhtk, v_bhtk = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed_bhtk = F.scaled_dot_product_attention(q_bhtk, k_bhtk, v_bhtk, is_causal=True)
        return x_btd + self.projection(mixed_bhtk.transpose(1, 2).reshape(b, t, d))


class Perceptron(nn.Module):
    """Normalized input, a four times wider hidden layer, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """The input plus a function of each position alone."""
        return x_btd + self.down(F.gelu(self.up(self.norm(x_btd))))


class CharacterTransformer(nn.Module):
    """Embeddings, a list of blocks looped over in ``forward``, a final norm, an untied readout."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(N_CHARACTERS, width)
        self.positions = nn.Embedding(CONTEXT, width)
        # Attention and perceptron are blocks of their own: a finer chain for rematerialization.
        self.blocks = nn.ModuleList(
            kind(width) for _ in range(depth) for kind in (Attention, Perceptron)
        )
        self.final_norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, N_CHARACTERS)

    def forward(self, tokens_bt: Tensor) -> Tensor:
        """Logits of the next character at every position, ``[b, t, v]``."""
        x_btd = self.characters(tokens_bt) + self.positions.weight[: tokens_bt.shape[1]]
        for block in self.blocks:
            x_btd = block(x_btd)
        return self.readout(self.final_norm(x_btd))


def model(width: int, depth: int = DEPTH) -> nn.Module:
    """A freshly initialized transformer; heads of size 16, so ``width / 16`` of them.

    Args:
        width: Features of the residual stream; a positive multiple of 16.
        depth: Pairs of attention and perceptron [count].

    Raises:
        InputError: The width is not a positive multiple of 16, or the depth not positive.

    Examples:
        >>> sum(p.numel() for p in model(32).parameters())
        33825
    """
    if width < HEAD_SIZE or width % HEAD_SIZE:
        near = max(HEAD_SIZE, round(width / HEAD_SIZE) * HEAD_SIZE)
        raise InputError(
            f"width={width} of task lm is not a positive multiple of its head size {HEAD_SIZE}; "
            f"the nearest that is: {near}"
        )
    if depth < 1:
        raise InputError(f"depth={depth} of task lm: need at least 1 pair of blocks")
    return CharacterTransformer(width, depth)


def batches(seed: int) -> Iterator[Tensor]:
    """Endless random windows of the training text, ``[b, t + 1]``, the same for the same seed."""
    text = _split()[0]
    generator = torch.Generator().manual_seed(seed)
    window = torch.arange(CONTEXT + 1)
    while True:
        starts = torch.randint(len(text) - CONTEXT, (BATCH, 1), generator=generator)
        yield text[starts + window]


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of the next character [nats]."""
    logits_btv = model(batch[:, :-1])
    return F.cross_entropy(logits_btv.flatten(0, 1), batch[:, 1:].flatten())


def evaluate(model: nn.Module) -> float:
    """Mean cross-entropy over evenly spaced windows of the validation text [nats]."""
    text = _split()[1]
    count = BATCH * VALIDATION_BATCHES
    starts = torch.linspace(0, len(text) - CONTEXT - 1, count).long()[:, None]
    windows = text[starts + torch.arange(CONTEXT + 1)]
    with torch.no_grad():
        losses = [loss(model, windows[i : i + BATCH]).item() for i in range(0, count, BATCH)]
    return sum(losses) / len(losses)


@functools.cache
def _split() -> tuple[Tensor, Tensor]:
    """Training and validation text as character codes; the last tenth validates."""
    from pydoc_data.topics import topics  # 0.5 MB of source: loaded when first needed

    text = "\n".join(topics[name] for name in sorted(topics))
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    printable = (codes >= 32) & (codes <= 126)
    codes = np.where(printable, codes - 31, np.where(codes == 10, 0, N_CHARACTERS - 1))
    tokens = torch.from_numpy(codes)
    n_training = int(len(tokens) * (1 - VALIDATION_FRACTION))
    return tokens[:n_training], tokens[n_training:]
