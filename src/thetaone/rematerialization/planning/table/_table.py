"""The least time of every interval of a chain in every amount of memory, and disk.

C(s, t, m, q, R) and C(s, t, m, q, D) are the least time to run stages s … t forward and backward
in m bytes of memory and q of disk. In R the input a_s waits in memory and is not counted. In D it
waits on disk, a copy was just written or read, and that copy is counted while it is used. The
gradient of a_{t+1} is there and counted; nothing kept is dropped before its use.

last stage (R):        f_t + b_t − tail_t    (its region stops at what the backward needs)
tape stage s now (R):  f_s + b_s + C(s+1, t, m − T_s, q, R)
promote (D):           C(s, t, m − A_s, q, R): the copy stays
keep a_j, s < j <= t:  Σ_{k=s}^{j−1} f_k + rest(j, t, m, q) + load + r_s(·) + C(s, j−1, m, q, ·)
    rest(j, t, m, q) = min(C(j, t, m − A_j, q, R), write(A_j) + C(j, t, m, q − A_j, D)),

C is the smallest; r_s(R) = 0 and r_s(D) = read(A_s). Without a disk only R is there: the table of
an infinitely slow disk. A region from s ends where its list of blocks ends, or before.

Source: the memory part is Beaumont, Eyraud-Dubois, Herrmann, Joly, Shilova, "Optimal checkpointing
for heterogeneous chains", hal-02352969, section 4; the tiers follow Aupy, Herrmann, Hovland,
Robert, SISC 38(3) 2016, generalized to unequal stages.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Region, Tier
from thetaone.rematerialization.planning.table._costs import Ints, Times
from thetaone.rematerialization.planning.table._problem import Problem


@dataclass(frozen=True)
class Table:
    """C by class of interval (numbered by start), level of disk and level of memory.

    ``swept[tier]`` is C(s, t, …) + ``sweeps[tier]``, which is Σ f_s…t and what it takes to come
    back to a_s: the whole interval run once more before. Where stages stand for several,
    ``leaves`` are the tables of these, on the same levels.
    """

    problem: Problem
    swept: dict[Tier, Times]
    sweeps: dict[Tier, NDArray[np.float64]]
    leaves: "tuple[Table, ...] | None" = None

    @property
    def nbytes(self) -> int:
        """Memory of the table [bytes]."""
        leaves = self.leaves or ()
        swept = sum(table.nbytes for table in self.swept.values())
        return swept + sum({id(leaf): leaf.nbytes for leaf in leaves}.values())

    def whole(self, tier: Tier = "ram") -> Times:
        """C(0, L−1, ·, ·) [s]: rows are levels of disk, columns of memory."""
        return self.interval(0, self.problem.costs.length - 1, tier)

    def interval(self, s: int, t: int, tier: Tier = "ram") -> Times:
        """C(s, t, ·, ·) [s]; inf where nothing fits."""
        number = self.problem.parts.by_start[s, t]
        return self.swept[tier][number] - self.sweeps[tier][number]

    def regions(self, disk_level: int, level: int, tier: Tier = "ram") -> list[Region]:
        """The schedule behind C(0, L−1, level, disk_level, tier), traced through the table."""
        regions: list[Region] = []
        bounds, leaves = self._bounds, self.leaves
        pending: list[tuple[int, int, int, int, Tier]] = [
            (0, self.problem.costs.length - 1, disk_level, level, tier)
        ]
        while pending:
            s, t, q, m, tier = pending.pop()
            if s == t and leaves is not None:
                regions += [
                    Region(start=bounds[s] + r.start, stop=bounds[s] + r.stop, tier=r.tier)
                    for r in leaves[s].regions(q, m, tier)
                ]
                continue
            split, place = self._decide(s, t, q, m, tier)
            if split:
                j, (after_q, after_m) = s + split, self._after(s + split, q, m, place)
                regions.append(Region(start=bounds[s], stop=bounds[j], tier=tier))
                pending.append((s, j - 1, q, m, tier))
                pending.append((j, t, after_q, after_m, place))
            elif tier == "disk":
                size = int(self.problem.costs.activation[s])
                pending.append((s, t, q, self._left(m, size), "ram"))
            elif t > s:
                size = int(self.problem.costs.tape[s])
                pending.append((s + 1, t, q, self._left(m, size), "ram"))
        return regions

    @property
    def _bounds(self) -> list[int]:
        """Where each stage of the table begins in the chain."""
        if self.leaves is None:
            return list(range(self.problem.costs.length + 1))
        return [0, *np.cumsum([leaf.problem.costs.length for leaf in self.leaves]).tolist()]

    def _decide(self, s: int, t: int, q: int, m: int, tier: Tier) -> tuple[int, Tier]:
        """Stages to run untaped and where the next input waits; 0 to tape, or to promote.

        A region is taken where it saves more than the table rounds; of regions that cost the same
        the longest: fewer of them.
        """
        problem, by_start = self.problem, self.problem.parts.by_start
        end = min(t, int(problem.costs.reach[s]))
        at_once = self._at_once(s, t, q, m, tier)
        if end <= s:
            return 0, "ram"
        swept = self.swept[tier]
        least = float(swept[by_start[s, t], q, m])
        rounding = 4 * float(np.finfo(swept.dtype).eps) * least
        if abs(at_once + float(self.sweeps[tier][by_start[s, t]]) - least) <= rounding:
            return 0, "ram"
        best: tuple[float, int, Tier] = (at_once, 0, "ram")
        inner = swept[by_start[s, s:end], q, m].astype(np.float64)
        limits = problem.costs.region_limits(s, tier)[: end - s] + problem.costs.activation[t + 1]
        inner[limits > problem.levels.values[m]] = np.inf
        for place in problem.tiers:
            seconds = inner + self._rest(s + 1, end, t, (q, m), place)
            split = len(seconds) - 1 - int(seconds[::-1].argmin())
            if seconds[split] < best[0]:
                best = (float(seconds[split]), split + 1, place)
        return best[1], best[2]

    def _at_once(self, s: int, t: int, q: int, m: int, tier: Tier) -> float:
        """Time when stage s writes its tape now, or its input comes to memory to stay."""
        costs = self.problem.costs
        left = self._left(m, int((costs.activation if tier == "disk" else costs.tape)[s]))
        if tier == "disk":
            return self._seconds("ram", s, t, q, left)
        if self.problem.levels.values[m] < costs.tape_limit(s, t):
            return np.inf
        if t == s:
            return float(costs.last[s])
        return float(costs.forward[s] + costs.backward[s]) + self._seconds("ram", s + 1, t, q, left)

    def _rest(
        self, start: int, end: int, t: int, at: tuple[int, int], place: Tier
    ) -> NDArray[np.float64]:
        """Put a_j in a tier and run j … t, for j = start … end, from levels of disk and memory."""
        problem, (q, m) = self.problem, at
        numbers = problem.parts.by_start[start : end + 1, t]
        sizes = problem.costs.activation[start : end + 1]
        after_q, after_m = np.full_like(sizes, q), np.full_like(sizes, m)
        if place == "ram":
            after_m = below(problem.levels.values, problem.levels.values[m] - sizes)
        elif problem.limited:
            after_q = below(problem.disk_levels, problem.disk_levels[q] - sizes)
        seconds = self.swept[place][numbers, after_q, after_m] - self.sweeps[place][numbers]
        if place == "disk":
            seconds = seconds + problem.write[start : end + 1]
        return np.where((after_q < 0) | (after_m < 0), np.inf, seconds)

    def _seconds(self, tier: Tier, s: int, t: int, q: int, m: int) -> float:
        """C(s, t, m, q, tier); inf below the lowest level."""
        if q < 0 or m < 0:
            return np.inf
        number = self.problem.parts.by_start[s, t]
        return float(self.swept[tier][number, q, m]) - float(self.sweeps[tier][number])

    def _after(self, j: int, q: int, m: int, place: Tier) -> tuple[int, int]:
        problem, size = self.problem, int(self.problem.costs.activation[j])
        if place == "ram":
            return q, self._left(m, size)
        levels = problem.disk_levels
        return (int(below(levels, levels[q] - size)) if problem.limited else q), m

    def _left(self, level: int, size: int) -> int:
        return self.problem.levels.at_most(int(self.problem.levels.values[level]) - size)


def below(levels: Ints, bytes_: Ints) -> Ints:
    """Index of the highest level within so many bytes; −1 when none is."""
    return np.searchsorted(levels, bytes_, side="right") - 1
