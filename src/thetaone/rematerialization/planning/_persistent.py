"""The optimal persistent schedule of a heterogeneous chain, by dynamic programming.

C(s, t, m) is the least time to run stages s … t forward and backward in m bytes; a_s is there and
not counted, the gradient of a_{t+1} is there and counted; nothing kept is dropped before its use.

last stage:        C(t, t, m) = f_t + b_t − tail_t     (its region stops at what the backward needs)
tape stage s now:  f_s + b_s + C(s+1, t, m − T_s)
keep a_j:          Σ_{k=s}^{j−1} f_k + load + C(j, t, m − A_j) + C(s, j−1, m),   s < j <= t

and C is the smaller. Source: Beaumont, Eyraud-Dubois, Herrmann, Joly, Shilova, "Optimal
checkpointing for heterogeneous chains", hal-02352969, section 4. The table is vectorized over m,
and intervals that cost the same share a row. Memory beyond what taping every stage needs buys
nothing, so a row is computed up to there only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Region
from thetaone.rematerialization.planning._costs import ChainArrays, Intervals, Ints, rows
from thetaone.rematerialization.planning._levels import Levels

Times = NDArray[np.floating]
_CHUNK = 2**16  # numbers added at a time, so that they stay in the cache


@dataclass(frozen=True)
class Table:
    """C by class of interval (row, numbered by start) and by memory level (column).

    ``swept`` is C(s, t, m) + Σ f_s…t + load: the whole interval run once more before.
    ``leaves`` are tables of the parts that a stage stands for, if it stands for several.
    """

    costs: ChainArrays
    parts: Intervals
    levels: Levels
    swept: Times
    sweeps: Times
    leaves: "tuple[Table, ...] | None" = None

    def whole(self) -> Times:
        """C(0, L−1, m) at every level [s]; inf where nothing fits."""
        return self.row(0, self.costs.length - 1)

    def row(self, s: int, t: int) -> Times:
        """C(s, t, m) at every level [s]."""
        number = self.parts.by_start[s, t]
        return self.swept[number] - self.sweeps[number]

    def regions(self, level: int) -> list[Region]:
        """The schedule behind C(0, L−1, level), traced through the table."""
        bounds = self._bounds()
        found: list[Region] = []
        pending = [(0, self.costs.length - 1, level)]
        while pending:
            s, t, m = pending.pop()
            if s == t and self.leaves is not None:
                inner = self.leaves[s].regions(m)
                found += [Region(start=bounds[s] + r.start, stop=bounds[s] + r.stop) for r in inner]
                continue
            split = self._decide(s, t, m)
            if split == 0:
                if t > s:
                    pending.append((s + 1, t, self._left(m, int(self.costs.tape[s]))))
                continue
            j = s + split
            found.append(Region(start=bounds[s], stop=bounds[j]))
            pending.append((s, j - 1, m))
            pending.append((j, t, self._left(m, int(self.costs.activation[j]))))
        return found

    def _bounds(self) -> list[int]:
        """Where each stage of this table begins in the chain."""
        if self.leaves is None:
            return list(range(self.costs.length + 1))
        return [0, *np.cumsum([leaf.costs.length for leaf in self.leaves]).tolist()]

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
            rest = by_start[s + 1, t]
            tape = float(self.swept[rest, left]) - float(self.sweeps[rest])
            tape += costs.forward[s] + costs.backward[s]
            least = self.swept[by_start[s, t], level]
            rounding = 4 * float(np.finfo(least.dtype).eps) * float(least)
            if abs(tape + float(self.sweeps[by_start[s, t]]) - float(least)) <= rounding:
                return 0
        stops = np.arange(s + 1, min(t, s + costs.longest) + 1)
        lefts = np.searchsorted(self.levels.values, memory - costs.activation[stops], "right") - 1
        rest = by_start[stops, t]
        keep = self.swept[rest, lefts].astype(np.float64) - self.sweeps[rest]
        keep += self.swept[by_start[s, stops - 1], level]
        limits = costs.sweep_limits(s)[: len(stops)] + costs.activation[t + 1]
        keep[(lefts < 0) | (limits > memory)] = np.inf
        best = len(keep) - 1 - int(keep[::-1].argmin())  # of equals the longest: fewer regions
        return best + 1 if keep[best] < tape else 0


def solve(
    costs: ChainArrays,
    parts: Intervals,
    levels: Levels,
    leaves: tuple[Table, ...] | None = None,
) -> Table:
    """Fill the table, intervals from the end of the chain to its start.

    Cost: O(classes · L · levels) additions, classes = L(L+1)/2 when no two intervals are alike.

    Args:
        costs: The chain.
        parts: Its intervals, equal ones as one.
        levels: Of memory.
        leaves: For a chain whose stages stand for several: the table of each, on the same levels.
    """
    return _Filling(costs, parts, levels, leaves).table()


class _Filling:
    """The tables while they are filled; ``after`` is C(s, t, m − A_s), numbered by stop."""

    def __init__(
        self,
        costs: ChainArrays,
        parts: Intervals,
        levels: Levels,
        leaves: tuple[Table, ...] | None,
    ) -> None:
        self.costs, self.parts, self.levels, self.leaves = costs, parts, levels, leaves
        kind = np.float64 if costs.length <= 256 else np.float32
        self.swept = np.full((parts.count, levels.count), np.inf, dtype=kind)
        self.after = np.full((parts.count, levels.count), np.inf, dtype=kind)
        firsts = np.array(parts.first)
        prefix = np.concatenate([[0.0], np.cumsum(costs.forward)])
        sweeps = prefix[firsts[:, 1] + 1] - prefix[firsts[:, 0]] + costs.load_seconds
        self.sweeps = sweeps.astype(kind)
        self.enough = np.zeros(parts.count, dtype=np.int64)  # level at which all is taped
        self.buffer = np.empty(max(_CHUNK, 2 * levels.count), dtype=kind)
        self.shifts: dict[int, tuple[int, Ints]] = {}
        self.unlike = parts.count == costs.length * (costs.length + 1) // 2

    def table(self) -> Table:
        """Fill every row."""
        start, sweep, jumps = -1, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        for number, (s, t) in enumerate(self.parts.first):
            if start != s:
                start, sweep = s, self.costs.sweep_limits(s)
                jumps = np.concatenate([[0], np.flatnonzero(np.diff(sweep)) + 1])
            row = self.swept[number]
            self._tape_now(s, t, number, row)
            if t > s:
                width = min(self.levels.count, int(self.enough[number]) + 1)
                self._keep(s, t, row[:width], sweep, jumps)
            if s > 0:
                self._shift(
                    row, int(self.costs.activation[s]), self.after[self.parts.by_stop[s, t]]
                )
            row += self.sweeps[number]
        return Table(self.costs, self.parts, self.levels, self.swept, self.sweeps, self.leaves)

    def _tape_now(self, s: int, t: int, number: int, row: Times) -> None:
        costs, values = self.costs, self.levels.values
        limit = int(np.searchsorted(values, _tape_limit(costs, s, t)))
        step = costs.forward[s] + costs.backward[s]
        if t > s:
            rest = int(self.parts.by_start[s + 1, t])
            step -= self.sweeps[rest]
            self._shift(self.swept[rest], int(costs.tape[s]), row)
            row[:limit] = np.inf
            row += step
            last = min(self.enough[rest], self.levels.count - 1)
            enough = int(np.searchsorted(values, values[last] + costs.tape[s]))
            over = self.enough[rest] >= self.levels.count
            self.enough[number] = self.levels.count if over else max(limit, enough)
            return
        self.enough[number] = limit
        if self.leaves is None:
            row[limit:] = costs.last[s]
        else:
            row[:] = self.leaves[s].whole()

    def _keep(self, s: int, t: int, row: Times, sweep: Ints, jumps: Ints) -> None:
        """The best first region, over a few of its lengths at a time."""
        width, by_start, by_stop = len(row), self.parts.by_start, self.parts.by_stop
        limits = sweep[jumps] + self.costs.activation[t + 1]
        firsts = np.searchsorted(self.levels.values[:width], limits).tolist()
        end = min(t, s + self.costs.longest)
        inner = rows(self.swept[:, :width], by_start[s, s:end], even=self.unlike)
        rest = rows(self.after[:, :width], by_stop[s + 1 : end + 1, t], even=self.unlike)
        many = max(1, len(self.buffer) // width)
        for start in range(0, end - s, many):
            stop = min(start + many, end - s)
            total = self.buffer[: (stop - start) * width].reshape(stop - start, width)
            np.add(inner[start:stop], rest[start:stop], out=total)
            for jump, first in zip(jumps.tolist(), firsts, strict=True):
                if jump >= stop:
                    break
                total[max(0, jump - start) :, :first] = np.inf
            np.minimum(row, total.min(axis=0), out=row)

    def _shift(self, row: Times, size: int, out: Times) -> None:
        """What remains at each level after ``size`` bytes are taken."""
        if size not in self.shifts:
            index = self.levels.shift(size)
            first = int(np.searchsorted(index, 0))
            self.shifts[size] = first, index[first:].astype(np.intp)
        first, index = self.shifts[size]
        np.take(row, index, out=out[first:])


def _tape_limit(costs: ChainArrays, s: int, t: int) -> int:
    return max(int(costs.limit_taping[s] + costs.activation[t + 1]), int(costs.limit_backward[s]))
