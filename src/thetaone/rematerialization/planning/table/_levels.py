"""The memory levels at which a planner keeps its table.

Where the sizes of a chain have few sums, the levels are these sums and nothing is rounded: equal
blocks, sizes that are multiples of a common unit, short chains. Elsewhere sizes are rounded up to
steps and budgets down to levels, so that what fits in levels fits in bytes. Small budgets need
fine steps, large ones do not: the lower half of the levels is finer. The step is chosen to make
the rounding small.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from thetaone.records import Tier
from thetaone.rematerialization.planning.table._costs import ChainArrays, Ints

FINER = 8  # coarse step over fine step
EVEN = 4096  # levels below which nothing is gained by sorting out the sums that can be made


@dataclass(frozen=True)
class Levels:
    """Rising bytes, the first 0, and the most that rounding can waste along one plan [bytes]."""

    values: Ints
    waste: int = 0

    @property
    def count(self) -> int:
        """Number of levels [count]."""
        return len(self.values)

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded."""
        return self.waste == 0

    def shift(self, size: int) -> Ints:
        """Index of the level that remains after ``size`` bytes are taken; −1 when none does."""
        return np.searchsorted(self.values, self.values - size, side="right") - 1

    def at_most(self, budget: int) -> int:
        """Index of the highest level within ``budget`` bytes; −1 when none is."""
        return int(np.searchsorted(self.values, budget, side="right")) - 1


_NOTHING = np.zeros(0, dtype=np.int64)


class _TooManyError(Exception):
    """More sums than a table may have levels."""


@dataclass(frozen=True)
class _Sums:
    """Sets of bytes, as rising arrays, up to a largest and of a largest size."""

    largest: int
    most: int

    def union(self, parts: Iterable[Ints]) -> Ints:
        values = np.concatenate([_NOTHING, *parts])
        values.sort()
        values = values[: int(np.searchsorted(values, self.largest, side="right"))]
        new = np.ones(len(values), dtype=bool)
        np.not_equal(values[1:], values[:-1], out=new[1:])
        values = values[new]
        if len(values) > self.most:
            raise _TooManyError
        return values


def exact_levels(
    costs: ChainArrays, store_all: int, *, most: int, disk: bool = False
) -> Levels | None:
    """Every memory at which the time of some interval may fall, up to store-all's.

    These are the needs of single operations plus sums of tapes and kept inputs before them. With
    the recurrences of the table, C(s, ·, m) falls only at

    ram:   needs(s), T_s + ram(s+1), A_j + ram(j), disk(j)     s < j <= reach(s)
    disk:  needs(s), A_s + ram(s),   A_j + ram(j), disk(j).

    Args:
        costs: The chain.
        store_all: Peak of store-all [bytes].
        most: Levels that a table may have [count]; None is returned for more.
        disk: Whether inputs may wait on disk.
    """
    unit = _unit(costs)
    if store_all // unit < min(most, EVEN):
        return Levels(np.arange(store_all // unit + 1, dtype=np.int64) * unit)
    sizes, length = np.unique(costs.activation[1:]), costs.length
    sums = _Sums(store_all, most)
    ram = far = kept = _NOTHING  # of the stage after; ``kept`` of all later ones in its list
    whole = [np.zeros(1, dtype=np.int64)]
    try:
        for s in range(length - 1, -1, -1):
            last = int(costs.reach[s]) <= s + 1
            kept = sums.union([ram + costs.activation[s + 1], far, _NOTHING if last else kept])
            places = [kept] if costs.reach[s] > s else []
            taped = [ram + costs.tape[s], costs.limit_taping[s] + sizes]
            taped.append(costs.limit_backward[s : s + 1])
            ram = sums.union([*places, *taped, _needs(costs, s, "ram", sizes)])
            if disk:
                promoted = ram + costs.activation[s]
                far = sums.union([*places, promoted, _needs(costs, s, "disk", sizes)])
            whole = [sums.union([*whole, ram, far])]
    except _TooManyError:
        return None
    return Levels(whole[0])


def _unit(costs: ChainArrays) -> int:
    """The largest number of bytes that divides all sizes and needs."""
    sizes = [costs.activation, costs.tape, costs.scratch, costs.limit_taping, costs.limit_backward]
    return max(1, int(np.gcd.reduce(np.concatenate(sizes))))


def _needs(costs: ChainArrays, s: int, tier: Tier, sizes: Ints) -> Ints:
    """Bytes that the regions from s need while they run, with each gradient that may be there."""
    return np.add.outer(np.unique(costs.region_limits(s, tier)), sizes).ravel()


def memory_levels(costs: ChainArrays, store_all: int, count: int) -> Levels:
    """About ``count`` levels from 0 to what store-all needs, rounding included.

    Args:
        costs: The chain.
        store_all: Peak of store-all [bytes].
        count: Levels to round to [count].
    """
    if store_all <= count:  # bytes themselves are few enough: no rounding at all
        return Levels(np.arange(store_all + 1, dtype=np.int64))
    fine = _step(costs, store_all, count)
    coarse = FINER * fine
    knee = max(1, count // 2 // FINER) * coarse
    top = max(knee, store_all + min(_rounding(costs, fine), store_all // 2))
    lower = np.arange(0, knee, fine, dtype=np.int64)
    upper = np.arange(knee, top + coarse, coarse, dtype=np.int64)
    return Levels(np.concatenate([lower, upper]), _waste(costs, coarse))


def _step(costs: ChainArrays, store_all: int, count: int) -> int:
    """The fine step, within a factor 2 of the even one, that rounds least."""
    upper = max(1, count - count // 2)
    reach = upper + count // 2 / FINER  # coarse steps that the levels cover together
    smallest = max(1, math.ceil(store_all / reach / FINER))
    biggest = max(costs.tape.max(), costs.activation.max())
    tried = {smallest}
    for size in {int(biggest), int(np.median(costs.tape)), int(np.median(costs.activation[1:]))}:
        for parts in range(1, 4 * count):
            step = math.ceil(size / parts)
            if smallest <= step <= 2 * smallest:
                tried.add(step)
    tried.update(int(smallest * (1 + i / 32)) for i in range(32))
    return min(sorted(tried), key=lambda step: _rounding(costs, step) + FINER * step)


def _rounding(costs: ChainArrays, fine: int) -> int:
    """Bytes lost when every tape is rounded up to coarse steps and every input to fine ones."""
    coarse = FINER * fine
    tapes = -costs.tape % coarse
    inputs = -costs.activation[1:] % fine
    return int(tapes.sum() + inputs.sum()) + coarse


def _waste(costs: ChainArrays, coarse: int) -> int:
    """The most bytes that rounding takes from a plan, wherever it lies between the levels.

    A plan takes one size a stage at most: the tape of stage s, or a kept input A_{s+1}; each is
    rounded up by less than a coarse step, and the budget down by less than one.
    """
    tapes, inputs = -costs.tape % coarse, -costs.activation[1:] % coarse
    return int(np.maximum(tapes, inputs).sum()) + coarse
