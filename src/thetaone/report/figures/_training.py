"""The target's training: its loss, and the memory it took."""

import math
from collections.abc import Sequence
from statistics import fmean

from thetaone.records import MemoryAccount, Trial
from thetaone.report.drawing import (
    Bars,
    Figure,
    Panel,
    Pattern,
    Reference,
    Series,
    bytes_words,
    category_axis,
    linear_axis,
)

MOST_POINTS = 1000  # of a line: about one a pixel of a wide page
SMOOTHING_STEPS = 9  # wide enough to see the trend through the noise of single batches

# field of the account -> (name, role of the colour, hatching)
PARTS: dict[str, tuple[str, str, Pattern]] = {
    "weights_bytes": ("weights", "w6", ""),
    "gradients_bytes": ("gradients", "w4", "/"),
    "optimizer_bytes": ("optimizer state", "w2", "x"),
    "outside_bytes": ("outside the blocks", "backward", "."),
}


def training_figure(target: Trial) -> Figure:
    """Loss of every step of the target, with a moving mean.

    Args:
        target: The target's training.

    Returns:
        The figure.
    """
    steps = tuple(float(step) for step in range(1, len(target.losses) + 1))
    shown = thinned(target.losses, MOST_POINTS)
    means = moving_mean(target.losses, SMOOTHING_STEPS)
    every = max(1, -(-len(steps) // MOST_POINTS))
    raw = Series(
        name="each step",
        x=tuple(steps[index] for index in shown),
        y=tuple(target.losses[index] for index in shown),
        colour="muted",
        symbol="none",
        width=0.8,
        tabulate=False,
    )
    mean = Series(
        name=f"mean of {SMOOTHING_STEPS} steps",
        x=steps[::every],
        y=means[::every],
        colour="mup",
        symbol="none",
        width=2.2,
    )
    panel = Panel(
        title="",
        x=linear_axis("step", [0.0, *steps], quantity="count", pad=0.02),
        y=linear_axis("training loss", target.losses),
        series=(raw, mean),
        height=330,
    )
    alt = (
        f"Training loss of width {target.width} over {len(steps)} steps: from "
        f"{target.losses[0]:.3f} to {target.final_loss:.3f} (mean of the last fifth)."
        if target.losses
        else "No step was trained."
    )
    return Figure(key="training", title="Training of the target", alt=alt, panels=(panel,))


def account_figure(account: MemoryAccount) -> Figure:
    """Where the bytes go: predicted part by part, measured, and without rematerialization.

    Args:
        account: Bytes of one training step.

    Returns:
        The figure: three bars, with the budget as a line.
    """
    parts: list[Bars] = []
    position = 0.0
    blocks = account.predicted_peak_bytes - sum(getattr(account, field) for field in PARTS)
    sizes = {field: float(getattr(account, field)) for field in PARTS}
    # gradients that do not exist yet at the peak take no room in it
    sizes["gradients_bytes"] += min(0.0, sizes["outside_bytes"])
    sizes["outside_bytes"] = max(0.0, sizes["outside_bytes"])
    for field, (name, colour, pattern) in PARTS.items():
        parts.append(_bar(name, position, position + sizes[field], 1.0, colour, pattern))
        position += sizes[field]
    parts.append(_bar("blocks, as planned", position, position + blocks, 1.0, "forward", ""))
    parts.append(_bar("measured", 0.0, account.measured_peak_bytes, 0.0, "mup", ""))
    parts.append(_bar("store-all", 0.0, account.store_all_bytes, 2.0, "sp", "/"))
    totals = {
        "measured": account.measured_peak_bytes,
        "planned": account.predicted_peak_bytes,
        "store-all": account.store_all_bytes,
    }
    budget = () if account.budget_bytes is None else (account.budget_bytes,)
    widest = max(*totals.values(), *budget)
    panel = Panel(
        title="",
        x=linear_axis("peak bytes of training", [0.0, widest], quantity="bytes", floor=0.0),
        y=category_axis(
            tuple(f"{name} · {bytes_words(total)}" for name, total in reversed(totals.items()))
        ),
        bars=tuple(bar for bar in parts if bar.right[0] > bar.left[0]),
        references=tuple(
            Reference(axis="x", value=b, label="budget", colour="budget") for b in budget
        ),
        height=250,
    )
    alt = _sentence(account)
    title = "Peak memory: predicted, measured, allowed"
    return Figure(key="account", title=title, alt=alt, panels=(panel,))


def thinned(values: Sequence[float], most: int) -> tuple[int, ...]:
    """Indices whose values draw the same line with about ``most`` points.

    Of each stretch of neighbours the least and the greatest stay, in order: a peak is never lost.

    Examples:
        >>> thinned([0.0, 9.0, 1.0, 2.0, -5.0, 3.0], 4), thinned([1.0, 2.0], 4)
        ((0, 1, 4, 5), (0, 1))
    """
    if len(values) <= most:
        return tuple(range(len(values)))
    stretch = -(-2 * len(values) // most)
    kept: set[int] = set()
    for start in range(0, len(values), stretch):
        near = range(start, min(start + stretch, len(values)))
        kept |= {min(near, key=values.__getitem__), max(near, key=values.__getitem__)}
    return tuple(sorted(kept))


def moving_mean(values: Sequence[float], window: int) -> tuple[float, ...]:
    """Centred mean over ``window`` values; shorter at the ends; not finite values are left out.

    Examples:
        >>> moving_mean([1.0, 2.0, 6.0], 3)
        (1.5, 3.0, 4.0)
    """
    half = window // 2
    means: list[float] = []
    for index in range(len(values)):
        near = values[max(0, index - half) : index + half + 1]
        finite = [value for value in near if math.isfinite(value)]
        means.append(fmean(finite) if finite else math.nan)
    return tuple(means)


def _bar(name: str, left: float, right: float, row: float, colour: str, pattern: Pattern) -> Bars:
    return Bars(
        name=name,
        left=(left,),
        right=(float(right),),
        y=(row,),
        colour=colour,
        pattern=pattern,
        thickness=0.62,
    )


def _sentence(account: MemoryAccount) -> str:
    text = (
        f"Measured peak {bytes_words(account.measured_peak_bytes)}, predicted "
        f"{bytes_words(account.predicted_peak_bytes)}; without rematerialization "
        f"{bytes_words(account.store_all_bytes)}"
    )
    if account.budget_bytes is None:
        return text + "; no budget was set."
    return text + f"; the budget is {bytes_words(account.budget_bytes)}."
