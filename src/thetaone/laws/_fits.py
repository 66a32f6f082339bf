"""Fits that carry their own doubt: a power law, and the vertex of a loss curve. No torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thetaone.errors import InputError
from thetaone.records import Optimum, PowerLaw, student_interval

Array = NDArray[np.float64]


def fit_exponent(
    sizes: Sequence[float] | ArrayLike, values: ArrayLike, *, confidence: float = 0.95
) -> PowerLaw:
    """Least-squares exponent of ``value = prefactor · size ** exponent``, with a t interval.

    One row of values: residuals about the line are taken as independent with one variance, n − 2
    degrees of freedom. Several rows (one a seed): each seed has its own line, the exponent is their
    mean and the interval comes from their scatter, S − 1 degrees of freedom. That covers even
    when the errors of one seed at different sizes are correlated (the usual case: same data).
    With one row and two sizes the line is exact and nothing is known about its error: ``stderr``
    is infinite and the interval is the whole line.

    Args:
        sizes: Widths, depths or counts, > 0, at least two different, shape [n].
        values: Measured quantities, > 0, shape [n] or [seeds, n].
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The fit; ``n_points`` counts every value.

    Raises:
        InputError: Shapes do not match, fewer than two different sizes, or a number that is not
            finite and positive (its logarithm does not exist).

    Examples:
        >>> law = fit_exponent([64, 128, 256], [8.0, 16.0, 32.0])
        >>> round(law.exponent, 9), round(law.prefactor, 9)
        (1.0, 0.125)
    """
    _check_confidence(confidence)
    x = np.log(_positive(np.atleast_1d(np.asarray(sizes, dtype=np.float64)), "sizes"))
    y = np.log(_positive(np.atleast_2d(np.asarray(values, dtype=np.float64)), "values"))
    if x.ndim != 1 or y.ndim != 2 or y.shape[1] != x.size:
        raise InputError(
            f"values has shape {np.shape(values)} for {x.size} sizes: "
            "pass one value a size, or one row of values a seed"
        )
    if np.unique(x).size < 2:
        raise InputError(f"sizes={list(np.ravel(sizes))}: need at least 2 different sizes to fit")
    centred = x - x.mean()
    spread = float(centred @ centred)
    slopes = y @ centred / spread
    slope = float(slopes.mean())
    if len(y) > 1:
        stderr, freedom = float(slopes.std(ddof=1)) / len(y) ** 0.5, len(y) - 1
    elif x.size > 2:
        residual = y[0] - y[0].mean() - slope * centred
        freedom = x.size - 2
        stderr = float(np.sqrt(residual @ residual / freedom / spread))
    else:
        stderr, freedom = float("inf"), 1
    return PowerLaw(
        exponent=slope,
        stderr=stderr,
        interval=student_interval(slope, stderr, freedom, confidence),
        prefactor=float(np.exp(y.mean() - slope * x.mean())),
        confidence=confidence,
        n_points=int(y.size),
    )


def fit_vertex(
    log2_lrs: Sequence[float] | ArrayLike, losses_per_seed: ArrayLike, *, confidence: float = 0.95
) -> Optimum:
    """Best learning rate: vertex of a parabola near the lowest point of the mean loss curve.

    The seeds are averaged (a rate at which any seed diverged counts as diverged). The parabola is a
    least-squares fit to the finite points within one octave of the lowest one, and at least its
    two neighbours; if a neighbour diverged, to the nearest points of the other side. The vertex is
    kept within the gap between the neighbours, and within half a gap on a diverged side, so no
    cliff can throw it off. Spread over seeds: jackknife of that vertex, Student-t; where one of
    these limits was met the interval covers the gap between the neighbours as well.

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
    _check_confidence(confidence)
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
    stderr, interval = float("nan"), bracket
    if len(losses) > 1:
        without_one = np.array([
            _vertex(x, _diverged_stay(np.delete(losses, seed, axis=0).mean(axis=0), mean), low)[0]
            for seed in range(len(losses))
        ])  # fmt: skip
        stderr = float(np.sqrt((len(losses) - 1) * without_one.var()))
        interval = student_interval(vertex, stderr, len(losses) - 1, confidence)
        if not free:  # seeds that agree on a limit of the method do not make it a measurement
            stderr = max(stderr, (bracket[1] - bracket[0]) / 12**0.5)  # uniform on the bracket
            interval = (min(interval[0], bracket[0]), max(interval[1], bracket[1]))
    return Optimum(
        log2_lr=vertex, stderr=stderr, interval=interval, loss=loss, confidence=confidence
    )


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
    wanted = -slope / (2 * curvature)
    step = float(np.clip(wanted, lower - x[low], upper - x[low]))
    height = float(height + slope * step + curvature * step**2)
    return float(x[low]) + step, height, bool(step == wanted)


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


def _positive(numbers: Array, name: str) -> Array:
    bad = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    if numbers.size == 0 or bad.size:
        found = f"contains {bad[0]:g}" if bad.size else "is empty"
        raise InputError(f"{name} {found}: a power law is fitted to finite numbers > 0 only")
    return numbers


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: must lie strictly between 0 and 1, e.g. 0.95")
