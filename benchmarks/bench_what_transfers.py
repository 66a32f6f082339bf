"""What else stays with width, and what does not: JSON lines.

The task of the README (which of eight products is the largest), Adam, three seeds, octave grid of
rates, widths 64 and 512.

``decay`` and ``init``: the best rate at both widths for each weight decay (policy ``shrinkage``)
and for each factor on the initial matrices, in µP and in SP: a two-dimensional sweep is a sweep of
rates for each value of the second axis, with the same prescription. ``batch`` and ``steps``: the
best rate at width 64 alone, for batches and trainings of several sizes. ``dropout``: the same.

Run: ``python benchmarks/bench_what_transfers.py`` (about three minutes on two cores).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from origin import record
from torch import Tensor, nn

import thetaone as t1

WIDTHS, SEEDS, STEPS = (64, 512), (0, 1, 2), 100
LRS = [2.0**power for power in range(-11, -1)]


class Products:
    """Which of eight products is the largest? ``examples/my_task.py``, with its batch to choose."""

    def __init__(self, batch: int = 64, dropout: float = 0.0) -> None:
        self.batch, self.dropout = batch, dropout

    def model(self, width: int) -> nn.Module:
        drop = [nn.Dropout(self.dropout)] if self.dropout else []
        hidden = [nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*hidden, *drop, nn.Linear(width, 8))

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(self.batch, 16, generator=generator)
            yield x, (x[:, :8] * x[:, 8:]).argmax(1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def scaled(factor: float, rule: str) -> Callable[[nn.Module, int, float], torch.optim.Optimizer]:
    """µP or plain Adam, with every initial matrix times a factor."""

    def build(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        if rule == "mup":
            base = lambda: Products().model(WIDTHS[0])  # noqa: E731
            optimizer = t1.parametrize(model, base=base, optimizer=torch.optim.Adam, lr=lr)
        else:
            optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 2:
                    p.mul_(factor)
        return optimizer

    build.__name__ = f"{rule}, init × {factor}"
    return build


def best(task: Products, *, widths: tuple[int, ...] = WIDTHS, **options: Any) -> dict[str, Any]:
    options = {"steps": STEPS, "optimizer": torch.optim.Adam, **options}
    found = t1.sweep(task, widths=widths, lrs=LRS, seeds=SEEDS, **options)
    rates = {width: round(optimum.log2_lr, 2) for width, optimum in found.optima.items()}
    losses = {width: round(optimum.loss, 4) for width, optimum in found.optima.items()}
    edge = [width for width, optimum in found.optima.items() if optimum.at_edge]
    result: dict[str, Any] = {"best_log2_lr": rates, "loss": losses, "at_edge": edge}
    if found.drift is not None:
        result["octaves"] = round(found.drift.octaves, 2)
        result["interval"] = [round(end, 2) for end in found.drift.interval]
    return result


def show(axis: str, value: float, rule: str, figures: dict[str, Any]) -> None:
    record("what_transfers", {"axis": axis, "value": value, "rule": rule}, figures)


def main() -> None:
    for rule in ("mup", "sp"):
        for decay in (0.0, 0.1, 1.0, 10.0):
            found = best(
                Products(), parametrization=rule, optimizer=torch.optim.AdamW, weight_decay=decay
            )
            show("decay", decay, rule, found)
        for factor in (0.5, 1.0, 2.0):
            show("init", factor, rule, best(Products(), parametrization=scaled(factor, rule)))
    for batch in (16, 64, 256):
        show("batch", batch, "mup", best(Products(batch), widths=WIDTHS[:1]))
    for steps in (50, 200, 800):
        show("steps", steps, "mup", best(Products(), widths=WIDTHS[:1], steps=steps))
    for dropout in (0.0, 0.2, 0.5):
        show("dropout", dropout, "mup", best(Products(dropout=dropout), widths=WIDTHS[:1]))


if __name__ == "__main__":
    main()
