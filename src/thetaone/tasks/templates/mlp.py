"""A multilayer perceptron on a table of numbers. Change what says CHANGE; keep the names.

thetaone check  task.py                              does every layer learn alike at every width?
thetaone sweep  task.py                              the best learning rate of each width
thetaone transfer task.py --target 1024 --report out/    all of it, and the large model trained
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

N_FEATURES = 20  # CHANGE: columns of your table
N_CLASSES = 4  # CHANGE: what is told apart
BATCH = 256

# What is swept when the command line says nothing. Small models are enough: the rate transfers.
defaults = {
    "widths": (64, 128, 256),
    "lrs": tuple(2.0**power for power in range(-11, -3)),  # a grid in octaves
    "seeds": (0, 1, 2, 3, 4),  # two or more give an interval, more a narrower one
    "steps": 100,
}

# How it is trained, here and at the target. Leave a line out to leave the choice to the defaults.
optimizer = "AdamW"
schedule = "warmup-cosine:0.1"  # constant, warmup-linear, wsd; the share of warm-up after a colon
clip = 1.0  # the largest global norm of the gradients


def model(width: int) -> nn.Module:
    """The model of one width: every hidden size grows with it, inputs and outputs do not."""
    return nn.Sequential(
        nn.Linear(N_FEATURES, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, N_CLASSES),
    )  # fmt: skip


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, the same for the same seed.

    CHANGE: read your table, e.g. ``numpy.loadtxt("table.csv", delimiter=",")``, and draw rows with
    ``generator``. Here the classes come from a teacher, so that the file runs as it is.
    """
    teacher = torch.randn(N_FEATURES, N_CLASSES, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(BATCH, N_FEATURES, generator=generator)
        yield x, (x @ teacher + 0.5 * (x**2) @ teacher).argmax(1)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What is minimized, as a scalar."""
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def evaluate(model: nn.Module) -> float:
    """Share of wrong answers, lower is better; leave the function out if loss is enough."""
    x, y = next(batches(10_000))  # CHANGE: rows that are not trained on
    with torch.no_grad():
        return (model(x).argmax(1) != y).float().mean().item()
