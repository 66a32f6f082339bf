"""The least peak that any persistent schedule of a chain reaches, exact in bytes.

With A_{t+1} the gradient at the end of an interval, P(s, t) is the least over
tape stage s now:  max(A_{t+1} + T_s + scratch, limit_s, T_s + P(s+1, t))
keep a_j:          max(A_{t+1} + sweep(s, j), A_j + P(j, t), P(s, j−1)),   s < j <= t.

Ties go to the shorter time. A step down costs no more than a schedule of the same peak.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.rematerialization.planning._costs import ChainArrays, Intervals, Ints


@dataclass(frozen=True)
class Floor:
    """Per class of intervals (numbered by start): least peak, its time, and the first decision.

    ``split[c]`` is 0 for "tape the first stage", else the stages of the region to recompute.
    """

    peak: Ints
    seconds: NDArray[np.float64]
    split: NDArray[np.int32]


def memory_floor(costs: ChainArrays, parts: Intervals) -> Floor:
    """Solve the recurrence for every class of intervals."""
    peak = np.zeros(parts.count, dtype=np.int64)
    seconds = np.zeros(parts.count)
    split = np.zeros(parts.count, dtype=np.int32)
    prefix = np.concatenate([[0.0], np.cumsum(costs.forward)])
    limits_of, limits = -1, np.zeros(0, dtype=np.int64)
    for number, (s, t) in enumerate(parts.first):
        if limits_of != s:
            limits_of, limits = s, costs.sweep_limits(s)
        best, time = _tape_first(costs, s, t, parts, peak, seconds)
        if t > s:
            end = min(t, s + costs.longest)
            rest, inner = parts.by_start[s + 1 : end + 1, t], parts.by_start[s, s:end]
            sweep = limits[: end - s] + costs.activation[t + 1]
            bytes_ = np.maximum(peak[rest] + costs.activation[s + 1 : end + 1], peak[inner])
            bytes_ = np.maximum(bytes_, sweep)
            times = seconds[rest] + seconds[inner] + prefix[s + 1 : end + 1]
            times += costs.load_seconds - prefix[s]
            least = bytes_.min()
            if least <= best:
                j = int(np.where(bytes_ == least, times, np.inf).argmin())
                if least < best or times[j] < time:
                    best, time, split[number] = least, times[j], j + 1
        peak[number], seconds[number] = best, time
    return Floor(peak, seconds, split)


def _tape_first(
    costs: ChainArrays,
    s: int,
    t: int,
    parts: Intervals,
    peak: Ints,
    seconds: NDArray[np.float64],
) -> tuple[int, float]:
    """Peak and seconds when stage s writes its tape now."""
    need = max(int(costs.limit_taping[s] + costs.activation[t + 1]), int(costs.limit_backward[s]))
    if t == s:
        return need, float(costs.last[s])
    time = float(costs.forward[s] + costs.backward[s])
    rest = parts.by_start[s + 1, t]
    return max(need, int(costs.tape[s] + peak[rest])), time + float(seconds[rest])
