"""Writes docs/guide/architectures.md: every Hugging Face architecture, checked from its config.

python scripts/make_architecture_table.py [NAME ...]

Trains each unmodified architecture a few steps at widths 64 to 512 and fits how far its features,
weights and updates move with width. Without names, all architectures are checked and the page is
written; with names, verdicts are printed only.
"""

import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "parametrization")]

from architectures import ARCHITECTURES, HEAD, LAYERS  # noqa: E402

from thetaone import coordinate_check  # noqa: E402
from thetaone.records import CoordinateCheck  # noqa: E402

WIDTHS, SEEDS, STEPS, LR = (64, 128, 256, 512), 2, (1, 3), 2**-8
ADAMW = "AdamW"
OTHERS = {"T5": ("Muon+AdamW",)}  # beside AdamW

INTRODUCTION = f"""# Hugging Face architectures

Every model below is unmodified, built from its config, and passed to `parametrize` as it is. The
verdict is a coordinate check at widths {", ".join(map(str, WIDTHS))}: {LAYERS} layers,
{SEEDS} seeds and up to 8 where a row is undecided, steps {STEPS[0]} and {STEPS[1]}, learning rate
2^-8 at width {WIDTHS[0]}, heads of size {HEAD} unless they grow. A layer fails when an exponent of
its weights, features, updates or alignment lies outside its band; the first one is shown. An
undecided row's interval crosses an edge of its band.

What falls with the width and is no fault, as [the check](parametrization.md) tells from its causes:

- W₀ Δh, the part of a feature update that a layer inherits, in a readout or a router (Mixtral's
  gate): towards a constant total, while the layer's own ΔW h keeps its size.
- The part of attention logits that sums products of random signs, as size^-1/2 of heads that grow.
  With queries and keys normalized (Qwen3) it is most of what moves at first.
- What carries a folded factor, up to the layer that needs it: queries of heads that grow; of a tied
  readout the last norm, and in T5 the dropout behind it.
- The norm of an update whose entries have the prescribed size but align less: the sign of a sum
  over T tokens has √(2/πT) of the norm of aligned entries where the width exceeds T, and more
  below. So it is with keys, where the mean over tokens cancels (ViT, T5), with T5's shared
  embedding, and with Mamba's `dt_proj`, whose inputs are 4 to 32 and its tokens 48. What such an
  update does, ΔW h, is undecided where it falls as well.

Written by `python scripts/make_architecture_table.py`.

| architecture | model | optimizer | verdict | undecided rows | failing layers |
|---|---|---|---|---|---|
"""


def check(name: str, optimizer: str) -> CoordinateCheck:
    return coordinate_check(
        ARCHITECTURES[name],
        widths=WIDTHS,
        lr=LR,
        optimizer=optimizer,
        seeds=SEEDS,
        steps=STEPS,
        **ARCHITECTURES[name].choices,
    )


def row(name: str, optimizer: str, judged: CoordinateCheck) -> str:
    shown: dict[str, str] = {}
    for failure in [one for one in judged.rows if not one.passed]:
        law = f"{failure.law.exponent:+.2f}" if failure.law else "zero or not finite"
        shown.setdefault(failure.layer, f"`{failure.layer}` ({failure.quantity} {law})")
    verdict = "passed" if judged.passed else "**failed**"
    cells = (name, f"`{ARCHITECTURES[name].cls}`", optimizer, verdict, len(judged.undecided))
    return f"| {' | '.join(map(str, cells))} | {', '.join(shown.values())} |"


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    rows: list[str] = []
    for name in names or list(ARCHITECTURES):
        for optimizer in (ADAMW, *OTHERS.get(name, ())):
            start = time.perf_counter()
            rows.append(row(name, optimizer, check(name, optimizer)))
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    if not names:
        page = ROOT / "docs" / "guide" / "architectures.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(INTRODUCTION + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
