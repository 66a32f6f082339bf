"""The vertex of a loss curve, with the doubt of its position. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from thetaone.errors import InputError
from thetaone.laws._fits import check_confidence
from thetaone.records import Optimum

Array = NDArray[np.float64]

BELOW = 0.975  # two standard errors, as Student's quantile for the few points at hand
UNSEEN_BIAS = 1 / 8  # of the bracket, where there are too few points for another curve


def fit_vertex(
    log2_lrs: Sequence[float] | ArrayLike, losses_per_seed: ArrayLike, *, confidence: float = 0.95
) -> Optimum:
    """Best learning rate: vertex of a parabola near the lowest point of the mean loss curve.

    The seeds are averaged (a rate at which any seed diverged counts as diverged). The parabola is a
    least-squares fit to the finite points within one octave of the lowest one, and at least its
    two neighbours; if a neighbour diverged, to the nearest points of the other side. The vertex is
    kept within the gap between the neighbours, and within half a gap on a diverged side, so no
    cliff can throw it off.

    Interval: half-width ``t · s + b``. s is the jackknife over seeds, each leaving the
    choice of the lowest point free, and t Student's. b is the bias of the curve chosen: the largest
    distance of the vertices of cubics through four and five points and of the parabola on every
    other point from the one reported. Where a limit above was met it covers the gap between the
    neighbours as well.

    Where three rates or more in a row cannot be told from the lowest mean by two standard errors
    (of the scatter pooled over the points around it) the bowl is ``flat``: the interval spans every
    rate that may be the lowest. Two in a row are the pair between which the vertex lies.

    A lowest point on the edge of the grid only bounds the optimum: ``at_edge``, infinite
    ``stderr``, interval open on that side. With one seed ``stderr`` is NaN and the interval is the
    pair of neighbours: it brackets the optimum of a noise-free bowl and carries no confidence.

    Args:
        log2_lrs: Grid of log2 learning rates, at least three different, any order, shape [n].
        losses_per_seed: Final losses, shape [n] or [seeds, n]; NaN and ±inf mean diverged.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        Position, spread and loss of the vertex.

    Raises:
        InputError: Shapes do not match, fewer than three rates, a repeated rate, or every rate
            diverged.

    Examples:
        >>> best = fit_vertex([-9, -8, -7, -6], [1.09, 0.29, 0.09, 0.49])
        >>> round(best.log2_lr, 6), best.at_edge
        (-7.166667, False)
    """
    check_confidence(confidence)
    x, losses = _sorted_grid(log2_lrs, losses_per_seed)
    mean = _mean_over_seeds(losses)
    if not np.isfinite(mean).any():
        raise InputError(
            f"every one of the {x.size} learning rates from 2^{x[0]:g} to 2^{x[-1]:g} diverged: "
            "extend the grid to lower rates"
        )
    low = int(np.argmin(mean))
    if low in (0, x.size - 1):
        beyond = (-np.inf, x[1]) if low == 0 else (x[-2], np.inf)
        return Optimum(
            log2_lr=float(x[low]), stderr=float("inf"), loss=float(mean[low]), at_edge=True,
            interval=(float(beyond[0]), float(beyond[1])), confidence=confidence,
        )  # fmt: skip
    vertex, loss, free = _vertex(x, mean, low)
    bracket = (float(x[low - 1]), float(x[low + 1]))
    if len(losses) == 1:
        return Optimum(
            log2_lr=vertex, stderr=float("nan"), interval=bracket, loss=loss, confidence=confidence
        )
    stderr = _jackknife(x, losses, mean)
    student = float(stdtrit(len(losses) - 1, (1 + confidence) / 2))
    half = student * stderr + _bias(x, mean, low, vertex)
    interval = (vertex - half, vertex + half)
    if not free:  # seeds that agree on a limit of the method do not make it a measurement
        stderr = max(stderr, (bracket[1] - bracket[0]) / 12**0.5)  # uniform on the bracket
        interval = (min(interval[0], bracket[0]), max(interval[1], bracket[1]))
    plateau = _plateau(x, losses, mean, low)
    if plateau is not None:
        interval = (min(interval[0], plateau[0]), max(interval[1], plateau[1]))
    return Optimum(
        log2_lr=vertex, stderr=stderr, interval=interval, loss=loss, confidence=confidence,
        flat=plateau is not None,
    )  # fmt: skip


def _jackknife(x: Array, losses: Array, mean: Array) -> float:
    """Standard error of the vertex over seeds; the lowest point is chosen anew without each."""
    without_one: list[float] = []
    for seed in range(len(losses)):
        rest = _diverged_stay(np.delete(losses, seed, axis=0).mean(axis=0), mean)
        low = min(max(int(np.argmin(rest)), 1), x.size - 2)
        without_one.append(_vertex(x, rest, low)[0])
    return float(np.sqrt((len(losses) - 1) * np.var(without_one)))


def _bias(x: Array, mean: Array, low: int, vertex: float) -> float:
    """Largest distance of other curves' vertices from the one reported [octaves]."""
    others: list[float] = []
    for first, last in ((low - 1, low + 2), (low - 2, low + 1), (low - 2, low + 2)):
        points = np.arange(first, last + 1)
        if first >= 0 and last < x.size and np.isfinite(mean[points]).all():
            others += _cubic_vertex(x, mean, points, low)
    if low >= 2 and low + 2 < x.size and np.isfinite(mean[[low - 2, low + 2]]).all():
        curvature, slope, _ = np.polyfit(
            x[low - 2 : low + 3 : 2] - x[low], mean[low - 2 : low + 3 : 2], 2
        )
        others += [float(x[low] - slope / (2 * curvature))] if curvature > 0 else []
    if not others:
        return float(x[low + 1] - x[low - 1]) * UNSEEN_BIAS
    within = np.clip(others, x[low - 1], x[low + 1])
    return float(np.abs(within - vertex).max())


def _cubic_vertex(x: Array, mean: Array, points: NDArray[np.int_], low: int) -> list[float]:
    """The minimum of a cubic nearest to the lowest point; none when it has no minimum."""
    a, b, c, _ = np.polyfit(x[points] - x[low], mean[points], 3)
    root = b * b - 3 * a * c
    if root <= 0:
        return []
    # of the two stationary points the one with positive curvature; stable for a near 0
    return [float(x[low] - c / (b + np.sqrt(root)))] if b + np.sqrt(root) > 0 else []


def _plateau(x: Array, losses: Array, mean: Array, low: int) -> tuple[float, float] | None:
    """The rates that may be the lowest, with one more on each side; None where they are few.

    The scatter of a mean is pooled over the lowest point and its neighbours, each seed's own level
    taken out: two seeds alone say little about it, and rates further away scatter otherwise.
    """
    around = [i for i in (low - 1, low, low + 1) if np.isfinite(mean[i])]
    if len(around) < 2:  # both neighbours diverged: the lowest stands out
        return None
    near = losses[:, around]
    scatter = near - near.mean(axis=0) - near.mean(axis=1, keepdims=True) + near.mean()
    freedom = (len(losses) - 1) * (len(around) - 1)
    stderr = np.sqrt(2 * (scatter**2).sum() / freedom / len(losses))
    limit = mean[low] + float(stdtrit(freedom, BELOW)) * stderr
    first = last = low
    while first > 0 and mean[first - 1] <= limit:
        first -= 1
    while last < x.size - 1 and mean[last + 1] <= limit:
        last += 1
    if last - first < 2:  # one rate stands out, or the two between which the vertex lies
        return None
    low_end = float(x[first - 1]) if first > 0 else -np.inf
    high_end = float(x[last + 1]) if last < x.size - 1 else np.inf
    return low_end, high_end


def _vertex(x: Array, loss: Array, low: int) -> tuple[float, float, bool]:
    """Vertex of the parabola around grid point ``low``, its loss, and whether no limit was met.

    Diverged losses are inf.
    """
    finite = np.isfinite(loss)
    left_ok, right_ok = bool(finite[low - 1]), bool(finite[low + 1])
    lower = x[low - 1] if left_ok else (x[low - 1] + x[low]) / 2
    upper = x[low + 1] if right_ok else (x[low] + x[low + 1]) / 2
    near = finite & (np.abs(x - x[low]) <= 1 + 1e-9)
    near[[low - 1, low + 1]] = (left_ok, right_ok)
    for index in sorted(range(x.size), key=lambda i: (abs(x[i] - x[low]), i)):
        if near.sum() >= 3:
            break
        near[index] |= finite[index]
    if near.sum() < 3:
        return float(x[low]), float(loss[low]), False
    curvature, slope, height = np.polyfit(x[near] - x[low], loss[near], 2)
    if curvature <= 0:  # no bowl in the points at hand: the lowest point is all that is known
        return float(x[low]), float(loss[low]), False
    newton = -slope / (2 * curvature)
    step = float(np.clip(newton, lower - x[low], upper - x[low]))
    height = float(height + slope * step + curvature * step**2)
    return float(x[low]) + step, height, bool(step == newton)


def _sorted_grid(log2_lrs: Any, losses_per_seed: Any) -> tuple[Array, Array]:
    x = np.atleast_1d(np.asarray(log2_lrs, dtype=np.float64))
    losses = np.atleast_2d(np.asarray(losses_per_seed, dtype=np.float64))
    if x.ndim != 1 or losses.ndim != 2 or losses.shape[1] != x.size:
        raise InputError(
            f"losses_per_seed has shape {np.shape(losses_per_seed)} for {x.size} learning rates: "
            "pass one loss a rate, or one row of losses a seed"
        )
    if not np.isfinite(x).all() or np.unique(x).size < max(3, x.size):
        raise InputError(
            f"log2_lrs={x.tolist()}: need at least 3 finite learning rates, each of them once"
        )
    order = np.argsort(x)
    return x[order], losses[:, order]


def _mean_over_seeds(losses: Array) -> Array:
    """Mean loss at each rate; +inf where any seed diverged (−inf too: a broken loss)."""
    diverged = ~np.isfinite(losses).all(axis=0)
    return np.where(diverged, np.inf, np.where(diverged, 0.0, losses).mean(axis=0))


def _diverged_stay(mean_without_one: Array, mean: Array) -> Array:
    return np.where(np.isfinite(mean), mean_without_one, np.inf)
