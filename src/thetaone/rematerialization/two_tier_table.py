"""The optimal schedule of a heterogeneous chain over two tiers: memory and disk.

C(s, t, m, q, R) and C(s, t, m, q, D) are the least time to run stages s … t forward and backward
in m bytes of memory and q of disk. In R the input a_s waits in memory and is not counted. In D it
waits on disk, a copy was just written or read, and that copy is counted while it is used. With
loading and the read of a_s charged to each recomputation, r_s(R) = 0 and r_s(D) = read(A_s):

tape stage s now (R):  f_s + b_s + C(s+1, t, m − T_s, q, R)
promote (D):           C(s, t, m − A_s, q, R): the copy stays
keep a_j, s < j <= t:  Σ_{k=s}^{j−1} f_k + rest(j, t, m, q) + load + r_s(·) + C(s, j−1, m, q, ·)
    rest(j, t, m, q) = min(C(j, t, m − A_j, q, R), write(A_j) + C(j, t, m, q − A_j, D)).

Source: the memory part is hal-02352969, section 4; the tiers follow Aupy, Herrmann, Hovland,
Robert, SISC 38(3) 2016, generalized to unequal stages.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records.schedule import DiskCost, Region, Tier
from thetaone.rematerialization.costs import ChainArrays, Intervals, Ints
from thetaone.rematerialization.levels import Levels

Times = NDArray[np.float64]  # axes: class of interval, level of disk, level of memory


@dataclass(frozen=True)
class Problem:
    """What the table is about.

    Attributes:
        costs: The chain.
        parts: Its intervals, equal ones as one.
        levels: Of memory.
        disk_levels: Rising bytes of disk, the first 0; one entry stands for no limit.
        write: Seconds to write each activation, by index.
        read: Seconds to read it.
    """

    costs: ChainArrays
    parts: Intervals
    levels: Levels
    disk_levels: Ints
    write: Times
    read: Times

    @property
    def limited(self) -> bool:
        """Whether a quota counts."""
        return len(self.disk_levels) > 1

    def sweep_limits(self, start: int, stop: int, tier: Tier) -> Ints:
        """Bytes to run ``start … j−1`` untaped, j = start+1 … stop, gradient of a_{stop+1} in."""
        limits = self.costs.sweep_limits(start)[: stop - start]
        if tier == "disk":
            activation, scratch = self.costs.activation, self.costs.scratch
            first = activation[start] + activation[start + 1] + scratch[start]
            limits = np.maximum(limits, first)
        return limits + self.costs.activation[stop + 1]

    def tape_limit(self, s: int, t: int) -> int:
        """Bytes to write the tape of stage s and to run it backward, its input in memory."""
        costs = self.costs
        forward = costs.limit_taping[s] + costs.activation[t + 1]
        return max(int(forward), int(costs.limit_backward[s]))

    def spent(self, s: int, t: int, tier: Tier) -> Times:
        """Seconds of running ``s … j−1`` and of coming back to a_s, for j = s+1 … t."""
        back = self.costs.load_seconds + (self.read[s] if tier == "disk" else 0.0)
        return np.cumsum(self.costs.forward[s:t]) + back


def problem(
    costs: ChainArrays, parts: Intervals, levels: Levels, disk: DiskCost, disk_units: int
) -> Problem:
    """Price every transfer and choose the levels of disk."""
    sizes = [int(size) for size in costs.activation]
    return Problem(
        costs=costs,
        parts=parts,
        levels=levels,
        disk_levels=_disk_levels(costs.activation[1:], disk.quota_bytes, disk_units),
        write=np.array([disk.write_seconds(size) for size in sizes]),
        read=np.array([disk.read_seconds(size) for size in sizes]),
    )


@dataclass(frozen=True)
class Table:
    """C by class of interval, level of disk and level of memory, for an input in each tier."""

    given: Problem
    ram: Times
    disk: Times

    def whole(self, tier: Tier = "ram") -> Times:
        """C(0, L−1, ·, ·) [s]: rows are levels of disk, columns of memory."""
        return self._of(tier)[self.given.parts.by_start[0, -1]]

    def regions(self, disk_level: int, level: int) -> list[Region]:
        """The schedule behind C(0, L−1, level, disk_level, R), traced through the table."""
        found: list[Region] = []
        pending: list[tuple[int, int, int, int, Tier]] = [
            (0, self.given.costs.length - 1, disk_level, level, "ram")
        ]
        while pending:
            s, t, q, m, tier = pending.pop()
            split, where = self._decide(s, t, q, m, tier)
            if split:
                j, (after_q, after_m) = s + split, self._after(s + split, q, m, where)
                found.append(Region(start=s, stop=j, tier=tier))
                pending.append((s, j - 1, q, m, tier))
                pending.append((j, t, after_q, after_m, where))
            elif tier == "disk":
                size = int(self.given.costs.activation[s])
                pending.append((s, t, q, self._left(m, size), "ram"))
            elif t > s:
                size = int(self.given.costs.tape[s])
                pending.append((s + 1, t, q, self._left(m, size), "ram"))
        return found

    def _decide(self, s: int, t: int, q: int, m: int, tier: Tier) -> tuple[int, Tier]:
        """Stages to run untaped and where the next input waits; 0 to tape, or to promote."""
        now = self._at_once(s, t, q, m, tier)
        best: tuple[float, int, Tier] = (now, 0, "ram")
        given = self.given
        fits = given.sweep_limits(s, t, tier) <= given.levels.values[m] if t > s else []
        spent = given.spent(s, t, tier)
        for split in np.flatnonzero(fits) + 1:
            j = s + int(split)
            inner = self._of(tier)[given.parts.by_start[s, j - 1], q, m] + spent[split - 1]
            for where in ("ram", "disk"):
                seconds = inner + self._rest(j, t, q, m, where)
                if seconds < best[0]:
                    best = (seconds, int(split), where)
        return best[1], best[2]

    def _at_once(self, s: int, t: int, q: int, m: int, tier: Tier) -> float:
        given = self.given
        if tier == "disk":
            left = self._left(m, int(given.costs.activation[s]))
            return float(self.ram[given.parts.by_start[s, t], q, left]) if left >= 0 else np.inf
        step = float(given.costs.forward[s] + given.costs.backward[s])
        left = self._left(m, int(given.costs.tape[s]))
        if given.levels.values[m] < given.tape_limit(s, t):
            return np.inf
        if t == s:
            return float(given.costs.last[s])
        return (
            step + float(self.ram[given.parts.by_start[s + 1, t], q, left]) if left >= 0 else np.inf
        )

    def _rest(self, j: int, t: int, q: int, m: int, where: Tier) -> float:
        after_q, after_m = self._after(j, q, m, where)
        if after_q < 0 or after_m < 0:
            return np.inf
        seconds = float(self._of(where)[self.given.parts.by_start[j, t], after_q, after_m])
        return seconds + (float(self.given.write[j]) if where == "disk" else 0.0)

    def _after(self, j: int, q: int, m: int, where: Tier) -> tuple[int, int]:
        size = int(self.given.costs.activation[j])
        if where == "ram":
            return q, self._left(m, size)
        levels = self.given.disk_levels
        return (_below(levels, int(levels[q]) - size) if self.given.limited else q), m

    def _left(self, level: int, size: int) -> int:
        return self.given.levels.at_most(int(self.given.levels.values[level]) - size)

    def _of(self, tier: Tier) -> Times:
        return self.ram if tier == "ram" else self.disk


def solve(given: Problem) -> Table:
    """Fill the table, intervals from the end of the chain to its start.

    Cost: O(classes · L · levels · disk levels) additions.
    """
    parts, shape = given.parts, (len(given.disk_levels), given.levels.count)
    ram = np.full((parts.count, *shape), np.inf)
    disk = np.full((parts.count, *shape), np.inf)
    rest = np.full((parts.count, *shape), np.inf)  # seen from before a_s is put anywhere
    for number, (s, t) in enumerate(parts.first):
        size = int(given.costs.activation[s])
        _tape_now(given, s, t, ram, ram[number])
        _keep(given, s, t, "ram", ram, rest, ram[number])
        _take(ram[number], given.levels.shift(size), disk[number])
        _keep(given, s, t, "disk", disk, rest, disk[number])
        if s > 0:
            _take(ram[number], given.levels.shift(size), rest[number])
            written = disk[number] + given.write[s]
            if given.limited:
                index = np.array(
                    [_below(given.disk_levels, int(q) - size) for q in given.disk_levels]
                )
                written = np.where(index[:, None] >= 0, written[index], np.inf)
            np.minimum(rest[number], written, out=rest[number])
    return Table(given, ram, disk)


def _tape_now(given: Problem, s: int, t: int, ram: Times, row: Times) -> None:
    if t == s:
        row[:] = given.costs.last[s]
    else:
        shift = given.levels.shift(int(given.costs.tape[s]))
        _take(ram[given.parts.by_start[s + 1, t]], shift, row)
        row += given.costs.forward[s] + given.costs.backward[s]
    row[:, given.levels.values < given.tape_limit(s, t)] = np.inf


def _keep(
    given: Problem, s: int, t: int, tier: Tier, inner: Times, rest: Times, row: Times
) -> None:
    if t == s:
        return
    by_start = given.parts.by_start
    total = inner[by_start[s, s:t]] + rest[by_start[s + 1 : t + 1, t]]
    total += given.spent(s, t, tier)[:, None, None]
    limits = given.sweep_limits(s, t, tier)
    total.swapaxes(1, 2)[given.levels.values[None, :] < limits[:, None]] = np.inf
    np.minimum(row, total.min(axis=0), out=row)


def _take(row: Times, index: Ints, out: Times) -> None:
    """``out[:, m]`` is ``row`` at the level that ``index[m]`` names; inf where none is left."""
    out[:] = np.where(index >= 0, row[:, index], np.inf)


def _disk_levels(sizes: Ints, quota: int | None, units: int) -> Ints:
    """0 … quota in at most ``units`` steps that divide the sizes well; ``[0]`` without a limit."""
    if quota is None or quota >= int(sizes.sum()):
        return np.zeros(1, dtype=np.int64)
    smallest = max(1, -(-quota // units))
    tried = {smallest, *(-(-int(sizes.max()) // parts) for parts in range(1, units + 1))}
    steps = [step for step in sorted(tried) if smallest <= step <= max(smallest, int(sizes.max()))]
    step = min(steps, key=lambda step: (int((-sizes % step).sum()), -step))
    return np.arange(quota // step + 1, dtype=np.int64) * step if quota >= step else _slot(quota)


def _slot(quota: int) -> Ints:
    return np.array([0, max(quota, 1)], dtype=np.int64)


def _below(levels: Ints, size: int) -> int:
    return int(np.searchsorted(levels, size, side="right")) - 1
