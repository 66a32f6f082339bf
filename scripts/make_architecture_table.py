"""Writes docs/guide/architectures.md: every Hugging Face architecture, checked from its config.

python scripts/make_architecture_table.py [NAME ...]

Trains each unmodified architecture a few steps at widths 64 to 512 and fits how far its features,
weights and updates move with width. Without names, all architectures are checked and the page is
written; with names, verdicts are printed only.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "parametrization")]

from architectures import ARCHITECTURES, HEAD, LAYERS  # noqa: E402

from thetaone import coordinate_check  # noqa: E402
from thetaone.records import CoordinateCheck  # noqa: E402

WIDTHS, SEEDS, STEPS, LR = (64, 128, 256, 512), 2, (1, 3), 2**-8
OPTIMIZERS: dict[str, Any] = {"AdamW": torch.optim.AdamW}

INTRODUCTION = f"""# Hugging Face architectures

Every model below is unmodified, built from its config, and passed to `parametrize` as it is. The
verdict is a coordinate check at widths {", ".join(map(str, WIDTHS))}: {LAYERS} layers,
{SEEDS} seeds, steps {STEPS[0]} and {STEPS[1]}, learning rate 2^-8 at width {WIDTHS[0]},
heads of size {HEAD} unless they grow.
A layer fails when the exponent of its feature update, own update, weight norm, update norm
or alignment lies outside its band; the first such exponent is shown. A feature update is
ΔW h + W₀ Δh: the second part of a readout, router or Mamba's `x_proj` rightly falls as the layer
widens, towards a constant total, so a total that falls counts only if ΔW h falls with it.

Written by `python scripts/make_architecture_table.py`.

| architecture | model | optimizer | verdict | failing layers |
|---|---|---|---|---|
"""


def check(name: str, optimizer: str) -> CoordinateCheck:
    return coordinate_check(
        ARCHITECTURES[name],
        widths=WIDTHS,
        lr=LR,
        optimizer=OPTIMIZERS[optimizer],
        seeds=SEEDS,
        steps=STEPS,
        **ARCHITECTURES[name].choices,
    )


def row(name: str, optimizer: str, found: CoordinateCheck) -> str:
    shown: dict[str, str] = {}
    for failure in found.failures:
        law = f"{failure.law.exponent:+.2f}" if failure.law else "zero or not finite"
        shown.setdefault(failure.layer, f"`{failure.layer}` ({failure.quantity} {law})")
    verdict = "passed" if found.passed else "**failed**"
    layers = ", ".join(shown.values())
    return f"| {name} | `{ARCHITECTURES[name].cls}` | {optimizer} | {verdict} | {layers} |"


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    rows: list[str] = []
    for name in names or list(ARCHITECTURES):
        for optimizer in OPTIMIZERS:
            start = time.perf_counter()
            rows.append(row(name, optimizer, check(name, optimizer)))
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    if not names:
        page = ROOT / "docs" / "guide" / "architectures.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(INTRODUCTION + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
