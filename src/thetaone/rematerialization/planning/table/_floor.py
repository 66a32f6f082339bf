"""The least peak that any persistent schedule of a chain reaches, exact in bytes.

P(s, t, R) and P(s, t, D) are the least peaks of stages s … t with the input in memory (not counted)
or on disk (its copy counted while it is used); A_{t+1} is the gradient at the end:

tape stage s now (R):  max(A_{t+1} + T_s + scratch, limit_s, T_s + P(s+1, t, R))
promote (D):           A_s + P(s, t, R)
keep a_j, s < j <= t:  max(A_{t+1} + sweep(s, j, ·), rest(j, t), P(s, j−1, ·))
    rest(j, t) = min(A_j + P(j, t, R), P(j, t, D))

Ties go to the shorter time. A step down costs no more than a schedule of the same peak. Without a
disk P(·, ·, D) is infinite. Solved by rising length of the interval, all of a length at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Region, Tier
from thetaone.rematerialization.planning.table._costs import Ints
from thetaone.rematerialization.planning.table._problem import Problem

Floats = NDArray[np.float64]
NEVER = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Floor:
    """Least peak of every interval, by tier, start and length − 1; the first decision behind it.

    ``split`` is 0 for "tape the first stage", or "promote", else the stages of the region to
    recompute; ``spilled`` says whether the input after that region goes to disk.
    """

    peak: dict[Tier, Ints]
    seconds: dict[Tier, Floats]
    split: dict[Tier, NDArray[np.int32]]
    spilled: NDArray[np.bool_]

    @property
    def bytes(self) -> int:
        """The least peak of the whole chain [bytes]."""
        return int(self.peak["ram"][0, -1])

    def regions(self) -> list[Region]:
        """The regions of a schedule that reaches it."""
        regions: list[Region] = []
        pending: list[tuple[int, int, Tier]] = [(0, len(self.spilled) - 1, "ram")]
        while pending:
            s, t, tier = pending.pop()
            split = int(self.split[tier][s, t - s])
            if split:
                j = s + split
                regions.append(Region(start=s, stop=j, tier=tier))
                pending.append((s, j - 1, tier))
                pending.append((j, t, "disk" if self.spilled[j, t - j] else "ram"))
            elif tier == "disk":
                pending.append((s, t, "ram"))
            elif t > s:
                pending.append((s + 1, t, "ram"))
        return regions


def memory_floor(problem: Problem) -> Floor:
    """Solve the recurrence, for an unlimited disk if there is one."""
    return _Solving(problem).floor()


class _Solving:
    """The recurrence while it is solved: arrays by stage and number of stages − 1.

    Row s of ``peak`` is P(s, s+d); row t of ``after`` is the cheaper place for a_j and P(j, t) with
    j = t − d; row s of ``sweep`` is what the region s … s+d needs. So the splits of all intervals
    of a length are rectangles.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, length = problem, problem.costs.length
        shape = (length, length)
        costs, tiers = problem.costs, problem.tiers
        self.peak: dict[Tier, Ints] = {tier: np.full(shape, NEVER) for tier in tiers}
        self.seconds: dict[Tier, Floats] = {tier: np.zeros(shape) for tier in tiers}
        self.split: dict[Tier, NDArray[np.int32]] = {
            tier: np.zeros(shape, dtype=np.int32) for tier in tiers
        }
        self.spilled = np.zeros(shape, dtype=bool)
        self.after, self.after_seconds = np.full(shape, NEVER), np.zeros(shape)
        self.sweep: dict[Tier, Ints] = {tier: np.full(shape, NEVER) for tier in tiers}
        self.again = np.zeros(shape)  # seconds to run the region, and to start from its input
        prefix = costs.sweep_seconds
        for s in range(length):
            stop = int(costs.reach[s])
            self.again[s, : stop - s] = prefix[s + 1 : stop + 1] - prefix[s] + costs.load_seconds
            for tier in tiers:
                self.sweep[tier][s, : stop - s] = costs.region_limits(s, tier)

    def floor(self) -> Floor:
        """Intervals by rising length; equal ones once."""
        first = np.array(self.problem.parts.first)
        by_start, length = self.problem.parts.by_start, self.problem.costs.length
        starts_of: list[Ints] = [np.zeros(0, dtype=np.int64)] * length
        lengths = first[:, 1] - first[:, 0]
        order = np.argsort(lengths, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            starts_of[int(lengths[chosen[0]])] = first[chosen, 0]
        number = np.zeros(len(first), dtype=np.int64)
        for d, starts in enumerate(starts_of):
            if not len(starts):
                continue
            self._solve(d, starts)
            every = np.flatnonzero(by_start.diagonal(d) >= 0)
            number[by_start[starts, starts + d]] = starts
            self._copy(d, every, number[by_start[every, every + d]])
        return Floor(self.peak, self.seconds, self.split, self.spilled)

    def _solve(self, d: int, s: Ints) -> None:
        """The intervals s … s+d of one length, for an input in each tier."""
        costs = self.problem.costs
        for tier in self.problem.tiers:
            peak, seconds = self._at_once(d, s, tier)
            split = np.zeros(len(s), dtype=np.int32)
            if d:
                need, time, best = self._kept(d, s, tier)
                better = (need < peak) | ((need == peak) & (time < seconds))
                peak, seconds = np.where(better, need, peak), np.where(better, time, seconds)
                split = np.where(better, best + 1, 0)
            self.peak[tier][s, d], self.seconds[tier][s, d] = peak, seconds
            self.split[tier][s, d] = split
        t = s + d
        self.after[t, d] = self.peak["ram"][s, d] + costs.activation[s]
        self.after_seconds[t, d] = self.seconds["ram"][s, d]
        if "disk" in self.problem.tiers:
            peak = self.peak["disk"][s, d]
            spilled = (peak < self.after[t, d]) & np.isfinite(self.problem.write[s])
            self.spilled[s, d] = spilled
            self.after[t, d] = np.where(spilled, peak, self.after[t, d])
            written = self.seconds["disk"][s, d] + self.problem.write[s]
            self.after_seconds[t, d] = np.where(spilled, written, self.after_seconds[t, d])

    def _at_once(self, d: int, s: Ints, tier: Tier) -> tuple[Ints, Floats]:
        """Peak and seconds when stage s writes its tape now, or its input stays in memory."""
        costs = self.problem.costs
        if tier == "disk":
            return costs.activation[s] + self.peak["ram"][s, d], self.seconds["ram"][s, d]
        need = costs.limit_taping[s] + costs.activation[s + d + 1]
        need = np.maximum(need, costs.limit_backward[s])
        if d == 0:
            return need, costs.last[s]
        time = costs.forward[s] + costs.backward[s] + self.seconds["ram"][s + 1, d - 1]
        return np.maximum(need, costs.tape[s] + self.peak["ram"][s + 1, d - 1]), time

    def _kept(self, d: int, s: Ints, tier: Tier) -> tuple[Ints, Floats, Ints]:
        """Least peak over the first regions, its seconds and its length − 1."""
        costs, t = self.problem.costs, s + d
        need = self.sweep[tier][s, :d] + costs.activation[t + 1][:, None]
        np.maximum(need, self.peak[tier][s, :d], out=need)
        np.maximum(need, self.after[t, :d][:, ::-1], out=need)
        least = need.min(axis=1)
        time = self.again[s, :d] + self.seconds[tier][s, :d] + self.after_seconds[t, :d][:, ::-1]
        if tier == "disk":
            time += self.problem.read[s][:, None]
        time[need > least[:, None]] = np.inf
        best = time.argmin(axis=1)
        return least, time[np.arange(len(s)), best], best

    def _copy(self, d: int, to: Ints, alike: Ints) -> None:
        """Intervals that cost the same have the same answer."""
        for arrays in (self.peak, self.seconds, self.split):
            for array in arrays.values():
                array[to, d] = array[alike, d]
        self.spilled[to, d] = self.spilled[alike, d]
        self.after[to + d, d] = self.after[alike + d, d]
        self.after_seconds[to + d, d] = self.after_seconds[alike + d, d]
