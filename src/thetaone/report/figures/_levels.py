"""Levels of the loss: each difference with its interval, over the loss that it is compared with."""

import math
from collections.abc import Sequence

from thetaone.records import LevelVerdict
from thetaone.report.drawing import (
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
        The figure, with 95 % intervals; one without ends is left out.
    """
    rows = {id(level): float(len(levels) - 1 - index) for index, level in enumerate(levels)}
    series = tuple(
        Series(
            name=verdict,
            x=tuple(relative(level) for level in judged),
            y=tuple(rows[id(level)] for level in judged),
            low=tuple(_end(level, 0) for level in judged),
            high=tuple(_end(level, 1) for level in judged),
            horizontal=True, colour=colour, symbol=symbol, dash="none",
            notes=tuple(str(level) for level in judged),
        )
        for verdict, (colour, symbol) in COLOURS.items()
        if (judged := [level for level in levels if level.verdict == verdict])
    )  # fmt: skip
    ends = [0.0, *(end for line in series for end in (*line.x, *line.low, *line.high))]
    panel = Panel(
        title="", x=linear_axis("loss above the other's [%]", ends, pad=0.08),
        y=category_axis([level.claim for level in levels]), series=series,
        references=(Reference(axis="x", value=0.0, dash="solid"),),
        height=90 + 48 * len(levels),
    )  # fmt: skip
    alt = " ".join(f"{level.claim}: {level}." for level in levels)
    return Figure(key="levels", title="Levels of the loss", alt=alt, panels=(panel,))


def _end(level: LevelVerdict, side: int) -> float:
    """An end of the interval, over the reference [%]; the difference itself where it has none."""
    end = level.interval[side]
    return 100 * end / abs(level.reference) if math.isfinite(end) else relative(level)


def relative(level: LevelVerdict) -> float:
    """Difference over the reference [%]."""
    return 100 * level.difference / abs(level.reference)
