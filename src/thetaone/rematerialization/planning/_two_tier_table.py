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

from thetaone.records import DiskCost, Region, Tier
from thetaone.rematerialization.planning._costs import ChainArrays, Intervals, Ints, rows
from thetaone.rematerialization.planning._levels import Levels

Times = NDArray[np.floating]  # axes: class of interval, level of disk, level of memory
_CHUNK = 2**16  # numbers added at a time, so that they stay in the cache
_EXACT = 2**24  # numbers a table; larger ones are in single precision


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
        leaves: For a chain whose stages stand for several: the table of each, on the same levels.
    """

    costs: ChainArrays
    parts: Intervals
    levels: Levels
    disk_levels: Ints
    write: NDArray[np.float64]
    read: NDArray[np.float64]
    leaves: "tuple[Table, ...] | None" = None

    @property
    def bounds(self) -> list[int]:
        """Where each stage of the table begins in the chain."""
        if self.leaves is None:
            return list(range(self.costs.length + 1))
        return [0, *np.cumsum([leaf.given.costs.length for leaf in self.leaves]).tolist()]

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


def problem(
    costs: ChainArrays,
    parts: Intervals,
    levels: Levels,
    disk: DiskCost,
    disk_levels: Ints,
    leaves: "tuple[Table, ...] | None" = None,
) -> Problem:
    """Price every transfer."""
    sizes = [int(size) for size in costs.activation]
    return Problem(
        costs=costs,
        parts=parts,
        levels=levels,
        disk_levels=disk_levels,
        write=np.array([disk.write_seconds(size) for size in sizes]),
        read=np.array([disk.read_seconds(size) for size in sizes]),
        leaves=leaves,
    )


@dataclass(frozen=True)
class Table:
    """C by class of interval, level of disk and level of memory, for an input in each tier.

    ``swept`` is C(s, t, …) + Σ f_s…t + what it takes to come back to a_s: run once more before.
    """

    given: Problem
    swept: dict[Tier, Times]
    sweeps: dict[Tier, NDArray[np.float64]]

    @property
    def nbytes(self) -> int:
        """Memory of the table [bytes]."""
        return sum(table.nbytes for table in self.swept.values())

    def whole(self, tier: Tier = "ram") -> Times:
        """C(0, L−1, ·, ·) [s]: rows are levels of disk, columns of memory."""
        number = self.given.parts.by_start[0, -1]
        return self.swept[tier][number] - self.sweeps[tier][number]

    def regions(self, disk_level: int, level: int, tier: Tier = "ram") -> list[Region]:
        """The schedule behind C(0, L−1, level, disk_level, tier), traced through the table."""
        found: list[Region] = []
        bounds, leaves = self.given.bounds, self.given.leaves
        pending: list[tuple[int, int, int, int, Tier]] = [
            (0, self.given.costs.length - 1, disk_level, level, tier)
        ]
        while pending:
            s, t, q, m, tier = pending.pop()
            if s == t and leaves is not None:
                found += [
                    Region(start=bounds[s] + r.start, stop=bounds[s] + r.stop, tier=r.tier)
                    for r in leaves[s].regions(q, m, tier)
                ]
                continue
            split, where = self._decide(s, t, q, m, tier)
            if split:
                j, (after_q, after_m) = s + split, self._after(s + split, q, m, where)
                found.append(Region(start=bounds[s], stop=bounds[j], tier=tier))
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
        best: tuple[float, int, Tier] = (self._at_once(s, t, q, m, tier), 0, "ram")
        if t == s:
            return best[1], best[2]
        given, by_start = self.given, self.given.parts.by_start
        inner = self.swept[tier][by_start[s, s:t], q, m].astype(np.float64)
        inner[given.sweep_limits(s, t, tier) > given.levels.values[m]] = np.inf
        for where in ("ram", "disk"):
            seconds = inner + self._rest(s + 1, t, q, m, where)
            split = int(seconds.argmin())
            if seconds[split] < best[0]:
                best = (float(seconds[split]), split + 1, where)
        return best[1], best[2]

    def _at_once(self, s: int, t: int, q: int, m: int, tier: Tier) -> float:
        given, costs = self.given, self.given.costs
        left = self._left(m, int((costs.activation if tier == "disk" else costs.tape)[s]))
        if tier == "disk":
            return self._seconds("ram", s, t, q, left)
        if given.levels.values[m] < given.tape_limit(s, t):
            return np.inf
        if t == s:
            return float(costs.last[s])
        return float(costs.forward[s] + costs.backward[s]) + self._seconds("ram", s + 1, t, q, left)

    def _rest(self, start: int, t: int, q: int, m: int, where: Tier) -> NDArray[np.float64]:
        """Put a_j in a tier and run j … t, for j = start … t."""
        given, numbers = self.given, self.given.parts.by_start[start : t + 1, t]
        sizes = given.costs.activation[start : t + 1]
        after_q, after_m = np.full_like(sizes, q), np.full_like(sizes, m)
        if where == "ram":
            after_m = _below(given.levels.values, given.levels.values[m] - sizes)
        elif given.limited:
            after_q = _below(given.disk_levels, given.disk_levels[q] - sizes)
        seconds = self.swept[where][numbers, after_q, after_m] - self.sweeps[where][numbers]
        if where == "disk":
            seconds = seconds + given.write[start : t + 1]
        return np.where((after_q < 0) | (after_m < 0), np.inf, seconds)

    def _seconds(self, tier: Tier, s: int, t: int, q: int, m: int) -> float:
        """C(s, t, m, q, tier); inf below the lowest level."""
        if q < 0 or m < 0:
            return np.inf
        number = self.given.parts.by_start[s, t]
        return float(self.swept[tier][number, q, m]) - float(self.sweeps[tier][number])

    def _after(self, j: int, q: int, m: int, where: Tier) -> tuple[int, int]:
        given, size = self.given, int(self.given.costs.activation[j])
        if where == "ram":
            return q, self._left(m, size)
        levels = given.disk_levels
        return (int(_below(levels, levels[q] - size)) if given.limited else q), m

    def _left(self, level: int, size: int) -> int:
        return self.given.levels.at_most(int(self.given.levels.values[level]) - size)


def solve(given: Problem) -> Table:
    """Fill the table, intervals from the end of the chain to its start.

    Cost: O(classes · L · levels · disk levels) additions.
    """
    return _Filling(given).table()


class _Filling:
    """The tables while they are filled.

    ``rest`` is what a_s costs from before it is put anywhere, numbered by stop.
    """

    def __init__(self, given: Problem) -> None:
        self.given, costs, parts = given, given.costs, given.parts
        shape = (parts.count, len(given.disk_levels), given.levels.count)
        kind = np.float64 if np.prod(shape) <= _EXACT else np.float32
        self.ram, self.disk, self.rest = (np.full(shape, np.inf, dtype=kind) for _ in range(3))
        firsts = np.array(parts.first)
        prefix = np.concatenate([[0.0], np.cumsum(costs.forward)])
        sweeps = prefix[firsts[:, 1] + 1] - prefix[firsts[:, 0]] + costs.load_seconds
        self.sweeps: dict[Tier, NDArray[np.float64]] = {
            "ram": sweeps,
            "disk": sweeps + given.read[firsts[:, 0]],
        }
        width = shape[1] * shape[2]
        self.buffer = np.empty(max(_CHUNK, 2 * width), dtype=kind)
        self.unlike = parts.count == costs.length * (costs.length + 1) // 2

    def table(self) -> Table:
        """Fill every row."""
        given, leaves = self.given, self.given.leaves
        for number, (s, t) in enumerate(given.parts.first):
            ram, disk = self.ram[number], self.disk[number]
            shift = given.levels.shift(int(given.costs.activation[s]))
            if s == t and leaves is not None:
                ram[:], disk[:] = leaves[s].whole("ram"), leaves[s].whole("disk")
            else:
                self._tape_now(s, t, ram)
                self._keep(s, t, "ram", ram)
                _take(ram, shift, disk)
                self._keep(s, t, "disk", disk)
            if s > 0:
                self._put(s, ram, disk, shift, self.rest[given.parts.by_stop[s, t]])
            ram += self.sweeps["ram"][number]
            disk += self.sweeps["disk"][number]
        return Table(given, {"ram": self.ram, "disk": self.disk}, self.sweeps)

    def _tape_now(self, s: int, t: int, row: Times) -> None:
        given, costs = self.given, self.given.costs
        if t == s:
            row[:] = costs.last[s]
        else:
            after = int(given.parts.by_start[s + 1, t])
            _take(self.ram[after], given.levels.shift(int(costs.tape[s])), row)
            row += costs.forward[s] + costs.backward[s] - self.sweeps["ram"][after]
        row[:, : np.searchsorted(given.levels.values, given.tape_limit(s, t))] = np.inf

    def _keep(self, s: int, t: int, tier: Tier, row: Times) -> None:
        """The best first region, over a few of its lengths at a time."""
        if t == s:
            return
        given, parts = self.given, self.given.parts
        limits = given.sweep_limits(s, t, tier)
        firsts = np.searchsorted(given.levels.values, limits)
        own = self.ram if tier == "ram" else self.disk
        inner = rows(own, parts.by_start[s, s:t], even=self.unlike)
        rest = rows(self.rest, parts.by_stop[s + 1 : t + 1, t], even=self.unlike)
        many = max(1, len(self.buffer) // row.size)
        for start in range(0, t - s, many):
            stop = min(start + many, t - s)
            total = self.buffer[: (stop - start) * row.size].reshape(stop - start, *row.shape)
            np.add(inner[start:stop], rest[start:stop], out=total)
            for one, first in zip(total, firsts[start:stop], strict=True):
                one[:, :first] = np.inf
            np.minimum(row, total.min(axis=0), out=row)

    def _put(self, s: int, ram: Times, disk: Times, shift: Ints, out: Times) -> None:
        """The cheaper of the two places for a_s."""
        given = self.given
        _take(ram, shift, out)
        written = disk + given.write[s]
        if given.limited:
            size = int(given.costs.activation[s])
            index = _below(given.disk_levels, given.disk_levels - size)
            written = np.where(index[:, None] >= 0, written[index], np.inf)
        np.minimum(out, written, out=out)


def _take(row: Times, index: Ints, out: Times) -> None:
    """``out[:, m]`` is ``row`` at the level that ``index[m]`` names; inf where none is left."""
    first = int(np.searchsorted(index, 0))
    out[:, :first] = np.inf
    out[:, first:] = row[:, index[first:]]


def disk_levels(sizes: Ints, quota: int | None, units: int) -> Ints:
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


def _below(levels: Ints, bytes_: Ints) -> Ints:
    """Index of the highest level within so many bytes; −1 when none is."""
    return np.searchsorted(levels, bytes_, side="right") - 1
