"""Law 7: what a backward pass recomputes and loads when only some activations are kept."""

import math


def periodic_forwards(length: int, keep_every: int) -> int:
    """Recomputed forwards when each layer starts again from the nearest kept activation.

    A segment of k layers costs 0 + 1 + … + (k − 1) = k(k − 1)/2.

    Args:
        length: Layers [count].
        keep_every: Layers a segment [count].

    Examples:
        >>> periodic_forwards(10, 5)
        20
    """
    whole, rest = divmod(length, keep_every)
    return whole * (keep_every * (keep_every - 1) // 2) + rest * (rest - 1) // 2


def periodic_loads(length: int) -> int:
    """Loads when every layer loads its kept activation afresh: one a layer.

    Examples:
        >>> periodic_loads(10)
        10
    """
    return length


def once_per_segment_loads(length: int, keep_every: int) -> int:
    """Loads in the reading that the problem rules out: a kept activation is loaded once.

    Examples:
        >>> once_per_segment_loads(10, 5)
        2
    """
    return math.ceil(length / keep_every)


def backward_seconds(
    forwards: int, loads: int, forward_seconds: float, load_seconds: float
) -> float:
    """Time spent to get activations back [unit of the inputs].

    Examples:
        >>> backward_seconds(20, 10, 20, 10)
        500
    """
    return forwards * forward_seconds + loads * load_seconds


def break_even_load_seconds(total_seconds: float, length: int) -> float:
    """Load time at which a disk that keeps every activation is as fast: one load a layer.

    Examples:
        >>> break_even_load_seconds(500, 10)
        50.0
    """
    return total_seconds / length


def optimal_advances(length: int, slots: int) -> int:
    """Fewest plain forwards of a whole step, first sweep included, with ``slots`` activations kept.

    ``t(L, s) = r L − C(s + r, r − 1)``, r the least integer with ``C(s + r, s) ≥ L``. The input
    takes one slot; slots are used again as they fall free; each layer's own taped forward is apart.

    Source: A. Griewank, A. Walther, ACM TOMS 26(1) 2000, Algorithm 799.

    Examples:
        >>> optimal_advances(10, 2), optimal_advances(10, 3), optimal_advances(100, 5)
        (20, 15, 316)
    """
    repeats = 0
    while math.comb(slots + repeats, slots) < length:
        repeats += 1
    return repeats * length - (math.comb(slots + repeats, repeats - 1) if repeats else 0)


def optimal_backward_forwards(length: int, kept: int) -> int:
    """Forwards that an optimal plan recomputes in the backward pass with ``kept`` activations.

    The input is at hand as well, so slots = kept + 1; the first sweep's L − 1 plain forwards are
    not part of the backward pass.

    Examples:
        >>> optimal_backward_forwards(10, kept=2), optimal_backward_forwards(10, kept=1)
        (6, 11)
    """
    return optimal_advances(length, kept + 1) - (length - 1)
