"""The bundled image task: a perceptron on scikit-learn's 8 × 8 handwritten digits.

Needs the extra ``examples``. The module itself is the task. Small enough that many models train
as one stack: a whole learning-rate sweep takes seconds.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thetaone.errors import InputError, MissingExtraError

DEPTH = 1
BATCH = 64
N_PIXELS = 64
N_DIGITS = 10
N_TRAINING = 1437  # four fifths of the 1797 images

defaults: Mapping[str, Any] = {
    "widths": (32, 64, 128),
    "steps": 100,
    "lrs": tuple(2.0**power for power in range(-12, -1)),
    "seeds": (0, 1, 2),
}

Batch = tuple[Tensor, Tensor]


def model(width: int, depth: int = DEPTH) -> nn.Module:
    """A perceptron with ``depth`` square hidden layers between its input and its readout.

    Args:
        width: Features of every hidden layer, at least 1.
        depth: Square layers, at least 1.

    Raises:
        InputError: Width or depth is below 1.

    Examples:
        >>> sum(p.numel() for p in model(32).parameters())
        3466
    """
    if width < 1 or depth < 1:
        raise InputError(f"width={width}, depth={depth} of task digits: need at least 1 of each")
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(N_PIXELS, width), nn.ReLU(), *hidden, nn.Linear(width, N_DIGITS))


def batches(seed: int) -> Iterator[Batch]:
    """Endless random batches ``(images [b, 64], labels [b])``, the same for the same seed."""
    images, labels = _digits()
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(N_TRAINING, (BATCH,), generator=generator)
        yield images[chosen], labels[chosen]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the digit [nats]."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def evaluate(model: nn.Module) -> float:
    """Mean cross-entropy over the held-out fifth [nats]."""
    images, labels = _digits()
    with torch.no_grad():
        return loss(model, (images[N_TRAINING:], labels[N_TRAINING:])).item()


@functools.cache
def _digits() -> Batch:
    """All images, standardized as a whole, in a fixed shuffled order, and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("sklearn", "examples") from error
    pixels, digits = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels, dtype=torch.float32)
    labels = torch.as_tensor(digits, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = (images - images.mean()) / images.std()
    return images[order], labels[order]
