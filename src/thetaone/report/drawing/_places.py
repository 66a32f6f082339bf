"""Where things lie in a panel: shares of its width and height, and which tick labels fit."""

import math
from collections.abc import Sequence
from itertools import pairwise

from thetaone.report.drawing._figure import Axis

LETTER = 6.6  # mean width of a letter of the 12 px sans serif [pixels]; measured, on the safe side
GAP = 10.0  # between two labels [pixels]


def share(value: float, axis: Axis) -> float:
    """Place of a value on its axis: 0 at the lower end of the range, 1 at the upper.

    Examples:
        >>> axis = Axis(label="width", range=(32, 128), ticks=(), log=True)
        >>> round(share(64, axis), 9), share(32, axis)
        (0.5, 0.0)
    """
    low, high = axis.range
    if not axis.log:
        return (value - low) / (high - low)
    if value <= 0:
        return -math.inf
    return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def percent_of(value: float) -> str:
    """A share of the plot as SVG writes it.

    Examples:
        >>> percent_of(0.375), percent_of(1.0)
        ('37.5%', '100%')
    """
    return f"{100 * value:.2f}".rstrip("0").rstrip(".") + "%"


def text_width(text: str) -> float:
    """About how wide a text is drawn [pixels]."""
    return LETTER * len(text)


def fitting(axis: Axis, width: float) -> frozenset[float]:
    """The ticks of a horizontal axis whose labels fit beside one another in ``width`` pixels.

    Of evenly spaced ticks each second, third, … is kept; of others, each that is clear of the one
    kept before it.

    Examples:
        >>> axis = Axis(label="", range=(0, 4), ticks=tuple((i, "a label") for i in range(5)))
        >>> sorted(fitting(axis, 400)), sorted(fitting(axis, 150))
        ([0, 1, 2, 3, 4], [0, 2, 4])
    """
    ticks = sorted(axis.ticks)
    for every in range(1, len(ticks) + 1):
        kept = ticks[::every]
        if len(kept) < 3 or _clear(kept, axis, width):
            break
    else:
        kept = ticks
    if len(kept) >= 3:
        return frozenset(value for value, _ in kept)
    chosen: list[tuple[float, str]] = []
    for tick in ticks:
        if not chosen or _clear([chosen[-1], tick], axis, width):
            chosen.append(tick)
    return frozenset(value for value, _ in chosen)


def _clear(ticks: Sequence[tuple[float, str]], axis: Axis, width: float) -> bool:
    edges = [
        (width * share(value, axis) - text_width(text) / 2, text_width(text))
        for value, text in ticks
    ]
    pairs = pairwise(edges)
    return all(left + extent + GAP <= right for (left, extent), (right, _) in pairs)
