"""Fits that carry their own doubt: a power law, and the vertex of a loss curve. No torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thetaone.errors import InputError
from thetaone.records import PowerLaw, student_interval

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
    check_confidence(confidence)
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


def _positive(numbers: Array, name: str) -> Array:
    bad = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    if numbers.size == 0 or bad.size:
        fault = f"contains {bad[0]:g}" if bad.size else "is empty"
        raise InputError(f"{name} {fault}: a power law is fitted to finite numbers > 0 only")
    return numbers


def check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: must lie strictly between 0 and 1, e.g. 0.95")
