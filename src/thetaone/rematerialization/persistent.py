"""The optimal persistent schedule of a heterogeneous chain, by dynamic programming.

C(s, t, m) is the least time to run stages s … t forward and backward in m bytes; a_s is there and
not counted, the gradient of a_{t+1} is there and counted; nothing kept is dropped before its use.

tape stage s now:  f_s + b_s + C(s+1, t, m − T_s)
keep a_j:          Σ_{k=s}^{j−1} f_k + load + C(j, t, m − A_j) + C(s, j−1, m),   s < j <= t

and C is the smaller. Source: Beaumont, Eyraud-Dubois, Herrmann, Joly, Shilova, "Optimal
checkpointing for heterogeneous chains", hal-02352969, section 4. The table is vectorized over m,
and intervals that cost the same share a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records.schedule import Region
from thetaone.rematerialization.costs import ChainArrays, Intervals, Ints
from thetaone.rematerialization.levels import Levels

Times = NDArray[np.floating]


@dataclass(frozen=True)
class Table:
    """C by class of interval (row, numbered by start) and by memory level (column)."""

    costs: ChainArrays
    parts: Intervals
    levels: Levels
    seconds: Times

    def whole(self) -> Times:
        """C(0, L−1, m) at every level [s]; inf where nothing fits."""
        return self.seconds[self.parts.by_start[0, -1]]

    def regions(self, level: int) -> list[Region]:
        """The schedule behind C(0, L−1, level), traced through the table."""
        found: list[Region] = []
        pending = [(0, self.costs.length - 1, level)]
        while pending:
            s, t, m = pending.pop()
            split = self._decide(s, t, m)
            if split == 0:
                if t > s:
                    pending.append((s + 1, t, self._left(m, int(self.costs.tape[s]))))
                continue
            j = s + split
            found.append(Region(start=s, stop=j))
            pending.append((s, j - 1, m))
            pending.append((j, t, self._left(m, int(self.costs.activation[j]))))
        return found

    def _left(self, level: int, size: int) -> int:
        return self.levels.at_most(int(self.levels.values[level]) - size)

    def _decide(self, s: int, t: int, level: int) -> int:
        """0 to tape stage s now, else the number of stages to run without a tape."""
        if t == s:
            return 0
        costs, by_start = self.costs, self.parts.by_start
        memory = int(self.levels.values[level])
        tape = np.inf
        left = self._left(level, int(costs.tape[s]))
        if left >= 0 and memory >= _tape_limit(costs, s, t):
            tape = float(self.seconds[by_start[s + 1, t], left])
            tape += costs.forward[s] + costs.backward[s]
        stops = np.arange(s + 1, t + 1)
        lefts = np.searchsorted(self.levels.values, memory - costs.activation[stops], "right") - 1
        keep = self.seconds[by_start[stops, t], lefts].astype(np.float64)
        keep += self.seconds[by_start[s, s:t], level]
        keep += np.cumsum(costs.forward[s:t]) + costs.load_seconds
        limits = costs.sweep_limits(s)[: t - s] + costs.activation[t + 1]
        keep[(lefts < 0) | (limits > memory)] = np.inf
        best = int(keep.argmin())
        return best + 1 if keep[best] < tape else 0


def solve(costs: ChainArrays, parts: Intervals, levels: Levels) -> Table:
    """Fill the table, intervals from the end of the chain to its start.

    Cost: O(classes · L · levels) additions, classes = L(L+1)/2 when no two intervals are alike.
    """
    kind = np.float64 if costs.length <= 256 else np.float32
    seconds = np.full((parts.count, levels.count), np.inf, dtype=kind)
    after = np.full((parts.count, levels.count), np.inf, dtype=kind)  # C(s, t, m − A_s), by stop
    prefix = np.concatenate([[0.0], np.cumsum(costs.forward)]).astype(kind)
    buffer = np.empty((costs.length, levels.count), dtype=kind)
    shifts = _Shifts(levels)
    limits_of, limits = -1, np.zeros(0, dtype=np.int64)
    for number, (s, t) in enumerate(parts.first):
        if limits_of != s:
            limits_of, limits = s, costs.sweep_limits(s)
        row = seconds[number]
        _tape_now(costs, parts, s, t, seconds, row, shifts)
        if t > s:
            total = buffer[: t - s]
            spent = prefix[s + 1 : t + 1] - prefix[s] + kind(costs.load_seconds)
            inner = _rows(seconds, parts.by_start[s, s:t])
            rest = _rows(after, parts.by_stop[s + 1 : t + 1, t])
            np.add(inner, spent[:, None], out=total)
            total += rest
            _forbid(total, levels, limits[: t - s] + costs.activation[t + 1])
            np.minimum(row, total.min(axis=0), out=row)
        if s > 0:
            shifts.apply(row, int(costs.activation[s]), after[parts.by_stop[s, t]])
    return Table(costs, parts, levels, seconds)


class _Shifts:
    """Moves a row by a size: what remains at each level after ``size`` bytes are taken."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.known: dict[int, tuple[int, Ints]] = {}

    def apply(self, row: Times, size: int, out: Times) -> None:
        if size not in self.known:
            index = self.levels.shift(size)
            first = int(np.searchsorted(index, 0))
            self.known[size] = first, index[first:].astype(np.intp)
        first, index = self.known[size]
        np.take(row, index, out=out[first:])


def _tape_limit(costs: ChainArrays, s: int, t: int) -> int:
    return max(int(costs.limit_taping[s] + costs.activation[t + 1]), int(costs.limit_backward[s]))


def _tape_now(
    costs: ChainArrays,
    parts: Intervals,
    s: int,
    t: int,
    seconds: Times,
    row: Times,
    shifts: _Shifts,
) -> None:
    first = int(np.searchsorted(shifts.levels.values, _tape_limit(costs, s, t)))
    if t == s:
        row[first:] = costs.forward[s] + costs.backward[s]
        return
    shifts.apply(seconds[parts.by_start[s + 1, t]], int(costs.tape[s]), row)
    row += costs.forward[s] + costs.backward[s]
    row[:first] = np.inf


def _forbid(total: Times, levels: Levels, limits: Ints) -> None:
    """No time below the level at which each sweep fits; ``limits`` never fall."""
    firsts = np.searchsorted(levels.values, limits)
    total[:, : firsts[0]] = np.inf
    for j in np.flatnonzero(np.diff(firsts)) + 1:
        total[j:, : firsts[j]] = np.inf


def _rows(table: Times, numbers: NDArray[np.int32]) -> Times:
    """The rows of a table: a view where they are evenly spaced, else a copy."""
    start, stop, count = int(numbers[0]), int(numbers[-1]), len(numbers)
    if count == 1:
        return table[start : start + 1]
    step = int(numbers[1]) - start
    if abs(step) == 1 and (np.diff(numbers) == step).all():
        return (
            table[start : stop + 1]
            if step > 0
            else table[start : (stop - 1 if stop else None) : -1]
        )
    return table[numbers]
