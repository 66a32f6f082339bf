"""Law 2: size of the feature update after one sign step, ``y' = sign(g xᵀ) x``."""

import math


def mean_square_update(d1: int) -> float:
    """E‖sign(g xᵀ) x‖²_RMS = E‖x‖₁² for unit Gaussian x: ``d1 (1 − 2/π) + d1² · 2/π``.

    ‖x‖₁ sums d1 half-normals of mean √(2/π) and variance 1 − 2/π. The d2 rows differ by sign only.

    Args:
        d1: Fan-in [count].

    Returns:
        Mean square, exact for every d1, d2 ≥ 1.

    Examples:
        >>> mean_square_update(1)
        1.0
    """
    return d1 * (1 - 2 / math.pi) + d1**2 * (2 / math.pi)


def sign_step_rate(d1: int) -> float:
    """Learning rate that makes the update's mean square exactly 1; about √(π/2)/d1.

    Examples:
        >>> round(sign_step_rate(1024) * 1024 / (3.141592653589793 / 2) ** 0.5, 3)
        1.0
    """
    return 1 / math.sqrt(mean_square_update(d1))
