"""Levels of the loss: each difference with its interval, over the loss that it is compared with."""

import math
from collections.abc import Sequence

from thetaone.records import LevelVerdict
from thetaone.report.drawing import (
    Bars,
    Figure,
    Panel,
    Reference,
    Series,
    Symbol,
    category_axis,
    linear_axis,
)

COLOURS: dict[str, tuple[str, Symbol]] = {
    "holds": ("good", "circle"),
    "undecided": ("muted", "square"),
    "fails": ("bad", "cross"),
}


def levels_figure(levels: Sequence[LevelVerdict]) -> Figure:
    """Relative difference of each pair of levels; left of zero the claim's own side is better.

    Args:
        levels: The verdicts.

    Returns:
        The figure; an interval without ends is left out.
    """
    rows = {id(level): float(len(levels) - 1 - index) for index, level in enumerate(levels)}
    finite = [level for level in levels if math.isfinite(level.interval[0])]
    bars = Bars(
        name="95 % interval",
        left=tuple(100 * level.interval[0] / abs(level.reference) for level in finite),
        right=tuple(100 * level.interval[1] / abs(level.reference) for level in finite),
        y=tuple(rows[id(level)] for level in finite),
        thickness=0.18, colour="strip",
    )  # fmt: skip
    series = tuple(
        Series(
            name=verdict,
            x=tuple(relative(level) for level in levels if level.verdict == verdict),
            y=tuple(rows[id(level)] for level in levels if level.verdict == verdict),
            colour=colour, symbol=symbol, dash="none",
            notes=tuple(str(level) for level in levels if level.verdict == verdict),
        )
        for verdict, (colour, symbol) in COLOURS.items()
        if any(level.verdict == verdict for level in levels)
    )  # fmt: skip
    ends = [*bars.left, *bars.right, *(relative(level) for level in levels), 0.0]
    panel = Panel(
        title="", x=linear_axis("loss above the other's [%]", ends, pad=0.08),
        y=category_axis([level.claim for level in levels]), series=series,
        bars=(bars,) if finite else (), references=(Reference(axis="x", value=0.0, dash="solid"),),
        height=90 + 48 * len(levels),
    )  # fmt: skip
    alt = " ".join(f"{level.claim}: {level}." for level in levels)
    return Figure(key="levels", title="Levels of the loss", alt=alt, panels=(panel,))


def relative(level: LevelVerdict) -> float:
    """Difference over the reference [%]."""
    return 100 * level.difference / abs(level.reference)
