"""What the trials say: the best rate of each width, its drift, the penalty of transferring it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from thetaone.laws import fit_vertex
from thetaone.records import (
    AxisValues,
    Choose,
    Combination,
    Drift,
    Optimum,
    Trial,
    student_interval,
)

Array = NDArray[np.float64]
Lines = tuple[list[int], list[int]]
Curve = tuple[Array, Array]  # log2 rates [n], final losses [seeds, n]


def loss_curves(
    trials: Sequence[Trial], axis: str = "width", choose: Choose = "loss"
) -> dict[int, Curve]:
    """Size along an axis -> log2 learning rates and losses of every seed; inf where diverged.

    Where trials failed, whole rates or whole seeds are left out, the one with the largest share of
    failures first, so that a seed is never compared on fewer rates than another and one bad seed
    leaves the others' answer alone. A seed that diverges at every rate, where others do not, says
    nothing about rates and is left out too.
    """
    curves: dict[int, Curve] = {}
    for width in sorted({getattr(trial, axis) for trial in trials}):
        of_width = [trial for trial in trials if getattr(trial, axis) == width]
        lrs = np.array(sorted({trial.lr for trial in of_width}))
        seeds = sorted({trial.seed for trial in of_width})
        losses = np.full((len(seeds), len(lrs)), np.nan)
        for trial in of_width:
            losses[seeds.index(trial.seed), np.searchsorted(lrs, trial.lr)] = trial.score(choose)
        rows, columns = _without_failures(losses)
        table = losses[np.ix_(rows, columns)]
        tells = np.isfinite(table).any(axis=1)
        curves[width] = (np.log2(lrs[columns]), table[tells] if tells.any() else table)
    return curves


def _without_failures(losses: Array) -> Lines:
    """Rows and columns of a table without NaN: the line with most of it goes first."""
    rows, columns = list(range(losses.shape[0])), list(range(losses.shape[1]))
    while np.isnan(missing := losses[np.ix_(rows, columns)]).any():
        share = np.isnan(missing)
        worst_row, worst_column = share.mean(axis=1), share.mean(axis=0)
        if worst_row.max() >= worst_column.max() and len(rows) > 1:
            del rows[int(worst_row.argmax())]
        else:
            del columns[int(worst_column.argmax())]
    return rows, columns


def nearest_optimum(optima: Mapping[int, Optimum], base_width: int) -> Optimum | None:
    """The best rate of the base width, or of the width nearest to it that has one.

    Rates are given at the base width, so every width's best is a best rate there; the nearest one
    is extrapolated least.
    """
    if not optima:
        return None
    return optima[min(optima, key=lambda width: (abs(math.log(width / base_width)), width))]


def find_optima(curves: Mapping[int, Curve]) -> dict[int, Optimum]:
    """Width -> vertex of its loss curve.

    Absent where no vertex can be fitted: fewer than three rates, or every rate diverged.
    """
    return {
        width: fit_vertex(log2_lrs, losses)
        for width, (log2_lrs, losses) in curves.items()
        if log2_lrs.size >= 3 and np.isfinite(losses.sum(axis=0)).any()
    }


def combine(
    trials: Sequence[Trial], base_size: int, axis: str = "width", choose: Choose = "loss"
) -> tuple[Combination, ...]:
    """Each combination of the further axes' values with its best rates, in order of the values.

    Args:
        trials: Trials that were trained to their end.
        base_size: Where rates are meant: losses are compared at the size nearest to it.
        axis: ``"width"`` or ``"depth"``.
        choose: What trials are compared by.
    """
    of_values: dict[AxisValues, list[Trial]] = {}
    for trial in trials:
        of_values.setdefault(trial.spec.axes, []).append(trial)
    combined: list[Combination] = []
    for values, of_one in sorted(of_values.items()):
        curves = loss_curves(of_one, axis, choose)
        optima = find_optima(curves)
        log2_lr, loss = _lowest(curves, optima, base_size)
        combined.append(Combination(values=dict(values), optima=optima, loss=loss, log2_lr=log2_lr))
    return tuple(combined)


def _lowest(
    curves: Mapping[int, Curve], optima: Mapping[int, Optimum], base_size: int
) -> tuple[float, float]:
    """Rate [octaves] and loss of the optimum nearest to the base; else of the lowest mean there."""
    best = nearest_optimum(optima, base_size)
    if best is not None:
        return best.log2_lr, best.loss
    x, losses = curves[min(curves, key=lambda size: abs(math.log(size / base_size)))]
    mean = losses.mean(axis=0)
    if not np.isfinite(mean).any():
        return math.nan, math.inf
    low = int(np.argmin(np.where(np.isfinite(mean), mean, np.inf)))
    return float(x[low]), float(mean[low])


def find_drift(
    curves: Mapping[int, Curve], optima: Mapping[int, Optimum], *, confidence: float = 0.95
) -> Drift | None:
    """Octaves from the smallest to the largest width's optimum; None with fewer than two optima.

    ``drift = vertex(largest) − vertex(smallest)``, ``stderr² = 2 · mean over widths of stderr²``.
    Two or three seeds say little about their own scatter, so it is pooled over all widths that
    have an inner optimum, taking it to be the same for each: Student-t interval with
    widths · (seeds − 1) degrees of freedom. Seeds share batches across widths, which makes errors
    cancel in the difference; this is not counted on. With one seed the two brackets bound it.
    """
    if len(optima) < 2:
        return None
    small, large = min(optima), max(optima)
    octaves = optima[large].log2_lr - optima[small].log2_lr
    bounded_only = optima[small].at_edge or optima[large].at_edge
    pooled = [
        (optimum.stderr**2, len(curves[width][1]) - 1)
        for width, optimum in optima.items()
        if math.isfinite(optimum.stderr)
    ]
    freedom = sum(degrees for _, degrees in pooled)
    ends: dict[str, Any] = {"from_width": small, "to_width": large, "confidence": confidence}
    if bounded_only or not freedom:
        interval = (
            optima[large].interval[0] - optima[small].interval[1],
            optima[large].interval[1] - optima[small].interval[0],
        )
        return Drift(
            octaves=octaves, stderr=math.nan, interval=interval, bounded_only=bounded_only, **ends
        )
    stderr = math.sqrt(2 * sum(degrees * variance for variance, degrees in pooled) / freedom)
    interval = student_interval(octaves, stderr, freedom, confidence)
    return Drift(octaves=octaves, stderr=stderr, interval=interval, **ends)


def transfer_penalties(
    curves: Mapping[int, Curve], optima: Mapping[int, Optimum], log2_lr: float
) -> dict[int, float]:
    """Width -> relative excess loss of training at ``2**log2_lr`` over that width's best.

    ``(loss(log2_lr) − loss(vertex)) / |loss(vertex)|``, read off the measured curve
    (``loss_at``); inf where training at that rate diverges, NaN outside the grid.
    """
    penalties: dict[int, float] = {}
    for width, optimum in optima.items():
        loss = loss_at(curves[width], log2_lr)
        best = min(optimum.loss, loss)
        penalties[width] = (loss - best) / abs(best) if math.isfinite(best) else loss
    return penalties


def loss_at(curve: Curve, log2_lr: float) -> float:
    """Mean loss of the seeds at a rate between grid points.

    The parabola through the lowest point and its neighbours between these; elsewhere monotone
    cubic interpolation, which adds no bumps of its own. inf beside a diverged rate, NaN outside.

    Args:
        curve: log2 rates, ascending, and losses of every seed.
        log2_lr: Where [octaves].

    Examples:
        >>> x = np.arange(-10.0, -4.0)
        >>> round(loss_at((x, (x[None] + 7.25) ** 2 + 1), -7.25), 9)
        1.0
    """
    x, losses = curve
    mean = losses.mean(axis=0)
    if not x[0] <= log2_lr <= x[-1]:
        return math.nan
    finite = np.isfinite(mean)
    low = int(np.argmin(np.where(finite, mean, np.inf)))
    around = slice(max(low - 1, 0), low + 2)
    if finite[around].sum() == 3 and x[low - 1] <= log2_lr <= x[low + 1]:
        parabola = np.polyfit(x[around] - x[low], mean[around], 2)
        return float(np.polyval(parabola, log2_lr - x[low]))
    right = int(np.searchsorted(x, log2_lr))
    beside = [right] if x[right] == log2_lr else [right - 1, right]
    if not finite[beside].all():
        return math.inf
    return float(PchipInterpolator(x[finite], mean[finite])(log2_lr))
