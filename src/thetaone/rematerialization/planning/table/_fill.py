"""Fills a table, intervals from the end of the chain to its start.

Vectorized over the levels; intervals that cost the same share a row. Memory beyond what taping
every stage needs buys nothing, so a row is added up to there only.
"""

from bisect import bisect_left

import numpy as np

from thetaone.records import Tier
from thetaone.rematerialization.planning.table._costs import Ints, Times
from thetaone.rematerialization.planning.table._intervals import rows
from thetaone.rematerialization.planning.table._problem import Problem
from thetaone.rematerialization.planning.table._table import Table, below

_CHUNK = 2**16  # numbers added at a time, so that they stay in the cache
_DOUBLE, _LONG = 2**25, 256  # numbers a tier, and stages; beyond them in single precision


def solve(problem: Problem, leaves: tuple[Table, ...] | None = None) -> Table:
    """Fill the table.

    Cost: O(classes · L · levels · disk levels) additions, classes = L(L+1)/2 when no two intervals
    are alike.

    Args:
        problem: The chain, levels and prices.
        leaves: For a chain whose stages stand for several: the table of each, on the same levels.
    """
    return _Filling(problem, leaves).table()


class _Filling:
    """The tables while they are filled.

    ``after`` is what a_s costs from before it is put anywhere, numbered by stop.
    """

    def __init__(self, problem: Problem, leaves: tuple[Table, ...] | None) -> None:
        self.problem, self.leaves = problem, leaves
        costs, parts = problem.costs, problem.parts
        shape = problem.shape
        double = costs.length <= _LONG and np.prod(shape) <= _DOUBLE
        kind = np.float64 if double else np.float32
        self.swept: dict[Tier, Times] = {
            tier: np.full(shape, np.inf, dtype=kind) for tier in problem.tiers
        }
        self.after: Times = np.full(shape, np.inf, dtype=kind)
        firsts, prefix = np.array(parts.first), costs.sweep_seconds
        sweeps = prefix[firsts[:, 1] + 1] - prefix[firsts[:, 0]] + costs.load_seconds
        self.sweeps: dict[Tier, np.ndarray] = {"ram": sweeps}
        if "disk" in problem.tiers:
            self.sweeps["disk"] = sweeps + problem.read[firsts[:, 0]]
        self.sweeps = {tier: one.astype(kind) for tier, one in self.sweeps.items()}
        self.bytes = problem.levels.values.tolist()
        needs = costs.limit_taping[firsts[:, 0]] + costs.activation[firsts[:, 1] + 1]
        needs = np.maximum(needs, costs.limit_backward[firsts[:, 0]])
        # levels at which the first stage of each interval can be taped, and at which all can
        self.taping = np.searchsorted(problem.levels.values, needs).tolist()
        self.enough = [0] * parts.count
        self.buffer = np.empty(max(_CHUNK, 2 * shape[1] * shape[2]), dtype=kind)
        self.shifts: dict[int, tuple[int, Ints]] = {}
        self.jumps_of, self.jumps = -1, dict[Tier, tuple[list[int], Ints]]()

    def table(self) -> Table:
        """Fill every row."""
        problem, leaves = self.problem, self.leaves
        for number, (s, t) in enumerate(problem.parts.first):
            self._set_enough(number, s, t)
            for tier in problem.tiers:
                row = self.swept[tier][number]
                if s == t and leaves is not None:
                    row[:] = leaves[s].whole(tier)
                elif tier == "ram":
                    self._tape_now(number, s, t, row)
                    self._keep(number, s, t, tier)
                else:
                    self._promote(number, s, row)
                    self._keep(number, s, t, tier)
                row += self.sweeps[tier][number]
            if s > 0:
                self._put(number, s, self.after[problem.parts.by_stop[s, t]])
        return Table(problem, self.swept, self.sweeps, leaves)

    def _set_enough(self, number: int, s: int, t: int) -> None:
        """The level at which every stage of an interval is taped; past the last if none is."""
        problem, enough = self.problem, self.taping[number]
        if t > s:
            rest = self.enough[problem.parts.by_start[s + 1, t]]
            enough = max(enough, self._with(rest, int(problem.costs.tape[s])))
        self.enough[number] = enough

    def _with(self, level: int, size: int) -> int:
        """The least level from which ``level`` is left when ``size`` bytes are taken."""
        if level >= len(self.bytes):
            return level
        return bisect_left(self.bytes, self.bytes[level] + size)

    def _tape_now(self, number: int, s: int, t: int, row: Times) -> None:
        problem, costs = self.problem, self.problem.costs
        if t == s:
            row[:] = costs.last[s]
        else:
            after = int(problem.parts.by_start[s + 1, t])
            self._shift(self.swept["ram"][after], int(costs.tape[s]), row)
            row += costs.forward[s] + costs.backward[s] - self.sweeps["ram"][after]
        row[:, : self.taping[number]] = np.inf

    def _promote(self, number: int, s: int, row: Times) -> None:
        """The copy of an input on disk stays in memory."""
        self._shift(self.swept["ram"][number], int(self.problem.costs.activation[s]), row)
        row -= self.sweeps["ram"][number]

    def _keep(self, number: int, s: int, t: int, tier: Tier) -> None:
        """The best first region, over a few of its lengths at a time."""
        problem, parts, costs = self.problem, self.problem.parts, self.problem.costs
        end = min(t, int(costs.reach[s]))
        if end <= s:
            return
        jumps, needs = self._jumps(s, tier)
        firsts = np.searchsorted(problem.levels.values, needs + costs.activation[t + 1]).tolist()
        enough = self.enough[number]
        if tier == "disk":
            enough = self._with(enough, int(costs.activation[s]))
        width = min(problem.levels.count, enough + 1)
        row = self.swept[tier][number, :, :width]
        even = parts.unlike
        inner = rows(self.swept[tier][..., :width], parts.by_start[s, s:end], even=even)
        rest = rows(self.after[..., :width], parts.by_stop[s + 1 : end + 1, t], even=even)
        many = max(1, len(self.buffer) // row.size)
        for start in range(0, end - s, many):
            stop = min(start + many, end - s)
            total = self.buffer[: (stop - start) * row.size].reshape(stop - start, *row.shape)
            np.add(inner[start:stop], rest[start:stop], out=total)
            for jump, first in zip(jumps, firsts, strict=True):
                if jump >= stop:
                    break
                total[max(0, jump - start) :, :, :first] = np.inf
            np.minimum(row, np.minimum.reduce(total, axis=0), out=row)

    def _jumps(self, s: int, tier: Tier) -> tuple[list[int], Ints]:
        """At which lengths the regions from s need more bytes, and how many."""
        if self.jumps_of != s:
            self.jumps_of, self.jumps = s, {}
        if tier not in self.jumps:
            limits = self.problem.costs.region_limits(s, tier)
            at = np.concatenate([[0], np.flatnonzero(np.diff(limits)) + 1])
            self.jumps[tier] = at.tolist(), limits[at]
        return self.jumps[tier]

    def _put(self, number: int, s: int, out: Times) -> None:
        """The cheaper of the places for a_s."""
        problem, size = self.problem, int(self.problem.costs.activation[s])
        self._shift(self.swept["ram"][number], size, out)
        out -= self.sweeps["ram"][number]
        if "disk" not in problem.tiers:
            return
        written = self.swept["disk"][number] + (problem.write[s] - self.sweeps["disk"][number])
        if problem.limited:
            index = below(problem.disk_levels, problem.disk_levels - size)
            written = np.where(index[:, None] >= 0, written[index], np.inf)
        np.minimum(out, written, out=out)

    def _shift(self, row: Times, size: int, out: Times) -> None:
        """What remains at each level of memory after ``size`` bytes are taken."""
        if size not in self.shifts:
            index = self.problem.levels.shift(size)
            first = int(np.searchsorted(index, 0))
            self.shifts[size] = first, index[first:].astype(np.intp)
        first, index = self.shifts[size]
        out[:, :first] = np.inf
        row.take(index, axis=1, out=out[:, first:], mode="clip")
