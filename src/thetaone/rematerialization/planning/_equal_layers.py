"""Equal layers with some activations kept: forwards, loads and time of one backward pass.

The activation that each layer's backward needs is recomputed from the nearest kept one before it.
Writes are free and a layer's own forward is part of its backward.
"""

from thetaone.errors import InputError
from thetaone.records import BackwardPass, KeptComparison
from thetaone.rematerialization.planning._binomial import advances


def compare_kept(
    length: int, keep_every: int, *, forward_seconds: float, load_seconds: float
) -> KeptComparison:
    """Keep every ``keep_every``-th of ``length`` activations, against the best use of as many.

    In closed form. Loaded for every layer, the i-th layer after a kept activation recomputes i − 1
    others: n(n − 1)/2 in a segment of n layers. The best use of k kept ones is binomial, with the
    input as one slot more: t(L, k + 1) advances, of which L − 1 are the first sweep.

    Args:
        length: Layers [count].
        keep_every: An activation is kept after every so many layers [count].
        forward_seconds: One forward of one layer [s].
        load_seconds: One load of one activation [s].

    Raises:
        InputError: A count below 1, or ``keep_every`` above ``length``.

    Examples:
        >>> comparison = compare_kept(10, 5, forward_seconds=20e-9, load_seconds=10e-9)
        >>> [(one.forwards, one.loads, round(one.seconds * 1e9)) for one in comparison.passes[:2]]
        [(20, 10, 500), (6, 10, 220)]
    """
    if length < 1 or not 1 <= keep_every <= length:
        raise InputError(
            f"length={length}, keep_every={keep_every}: need 1 <= keep_every <= length"
        )
    kept, rest = divmod(length, keep_every)
    every = kept * (keep_every * (keep_every - 1) // 2) + rest * (rest - 1) // 2
    best = advances(length, kept + 1) - (length - 1)
    plans = [
        (f"every {keep_every}th, loaded for every layer", kept, every),
        (f"optimal with {kept} kept, loaded for every layer", kept, best),
    ]
    if keep_every > 1:
        plans.append(("all kept, loaded for every layer", length, 0))
    passes: list[BackwardPass] = []
    for policy, count, forwards in plans:
        seconds = forwards * forward_seconds + length * load_seconds
        passes.append(
            BackwardPass(
                policy=policy,
                kept=count,
                forwards=forwards,
                loads=length,
                seconds=seconds,
                break_even_load_seconds=seconds / length,
            )
        )
    return KeptComparison(length=length, passes=tuple(passes))
