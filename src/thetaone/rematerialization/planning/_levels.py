"""The memory levels at which a planner keeps its table.

Small budgets need fine steps, large ones do not: the lower half of the levels is finer. Sizes are
rounded up to steps and budgets down to levels, so what fits in levels fits in bytes. The step is
chosen to make that rounding small: for equal blocks it divides the sizes nearly exactly.
"""

import math
from dataclasses import dataclass

import numpy as np

from thetaone.rematerialization.planning._costs import ChainArrays, Ints

FINER = 8  # coarse step over fine step


@dataclass(frozen=True)
class Levels:
    """Rising bytes, the first 0, and the most that rounding can waste along one plan [bytes]."""

    values: Ints
    waste: int

    @property
    def count(self) -> int:
        """Number of levels [count]."""
        return len(self.values)

    def shift(self, size: int) -> Ints:
        """Index of the level that remains after ``size`` bytes are taken; −1 when none does."""
        return np.searchsorted(self.values, self.values - size, side="right") - 1

    def at_most(self, budget: int) -> int:
        """Index of the highest level within ``budget`` bytes."""
        return int(np.searchsorted(self.values, budget, side="right")) - 1


def memory_levels(costs: ChainArrays, store_all: int, count: int) -> Levels:
    """About ``count`` levels from 0 to what store-all needs, rounding included.

    Args:
        costs: The chain.
        store_all: Peak of store-all [bytes].
        count: Levels wanted [count].
    """
    if store_all <= count:  # bytes themselves are few enough: no rounding at all
        return Levels(np.arange(store_all + 1, dtype=np.int64), 0)
    fine = _step(costs, store_all, count)
    coarse = FINER * fine
    waste = _waste(costs, fine)
    knee = max(1, count // 2 // FINER) * coarse
    top = max(knee, store_all + min(waste, store_all // 2))
    lower = np.arange(0, knee, fine, dtype=np.int64)
    upper = np.arange(knee, top + coarse, coarse, dtype=np.int64)
    return Levels(np.concatenate([lower, upper]), waste)


def _step(costs: ChainArrays, store_all: int, count: int) -> int:
    """The fine step, within a factor 2 of the even one, that wastes least."""
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
    return min(sorted(tried), key=lambda step: _waste(costs, step) + FINER * step)


def _waste(costs: ChainArrays, fine: int) -> int:
    """Bytes lost when every tape is rounded up to coarse steps and every input to fine ones."""
    coarse = FINER * fine
    tapes = -costs.tape % coarse
    inputs = -costs.activation[1:] % fine
    return int(tapes.sum() + inputs.sum()) + coarse
