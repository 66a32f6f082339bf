"""A convolutional network on images. Change what says CHANGE; keep the names.

thetaone check  task.py                              does every layer learn alike at every width?
thetaone sweep  task.py                              the best learning rate of each width
thetaone transfer task.py --target 256 --report out/     all of it, and the large model trained
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

N_CHANNELS, SIDE = 3, 16  # CHANGE: of your images
N_CLASSES = 10  # CHANGE: what is told apart
BATCH = 64

# What is swept when the command line says nothing. Small models are enough: the rate transfers.
defaults = {
    "widths": (16, 32, 64),  # channels
    "lrs": tuple(2.0**power for power in range(-12, -5)),  # a grid in octaves
    "seeds": (0, 1),  # two or more give an interval
    "steps": 60,
}

# How it is trained, here and at the target. Leave a line out to leave the choice to the defaults.
optimizer = "AdamW"
schedule = "warmup-cosine:0.1"  # constant, warmup-linear, wsd; the share of warm-up after a colon


def convolution(channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """Convolution, normalization, nonlinearity."""
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(out_channels), nn.ReLU()


def model(width: int) -> nn.Module:
    """The model of one width: channels grow with it, the image and the classes do not."""
    return nn.Sequential(
        *convolution(N_CHANNELS, width), nn.MaxPool2d(2),
        *convolution(width, 2 * width), nn.MaxPool2d(2),
        *convolution(2 * width, 2 * width), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(2 * width, N_CLASSES),
    )  # fmt: skip


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, the same for the same seed.

    CHANGE: read your images, e.g. with ``torchvision.datasets.ImageFolder``, and draw some with
    ``generator``. Here each class is a pattern under noise, so that the file runs as it is.
    """
    fixed = torch.Generator().manual_seed(1)
    patterns = torch.randn(N_CLASSES, N_CHANNELS, SIDE, SIDE, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        y = torch.randint(N_CLASSES, (BATCH,), generator=generator)
        noise = torch.randn(BATCH, N_CHANNELS, SIDE, SIDE, generator=generator)
        yield patterns[y] + noise, y


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What is minimized, as a scalar."""
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def evaluate(model: nn.Module) -> float:
    """Share of wrong answers, lower is better; leave the function out if loss is enough."""
    x, y = next(batches(10_000))  # CHANGE: images that are not trained on
    with torch.no_grad():
        return (model(x).argmax(1) != y).float().mean().item()
