"""Law 1: size of the features ``y = W x`` at initialization."""

import math


def mean_square_feature(d1: int) -> float:
    """E‖y‖²_RMS for unit Gaussian W (d2 × d1) and x: each yᵢ sums d1 products of variance 1.

    Args:
        d1: Fan-in [count]. The fan-out does not enter: ‖·‖_RMS averages over it.

    Returns:
        ``d1``, exact for every d1, d2 ≥ 1.

    Examples:
        >>> mean_square_feature(64)
        64.0
    """
    return float(d1)


def init_std(d1: int) -> float:
    """Standard deviation of the entries of W that makes E‖Wx‖²_RMS exactly 1: ``1/√d1``.

    Examples:
        >>> init_std(64)
        0.125
    """
    return 1 / math.sqrt(d1)
