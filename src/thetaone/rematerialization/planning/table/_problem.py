"""What a table is about: the chain, its memory levels, and what a disk costs if there is one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import DiskCost, Tier
from thetaone.rematerialization.planning.table._costs import ChainArrays, Ints
from thetaone.rematerialization.planning.table._intervals import Intervals
from thetaone.rematerialization.planning.table._levels import Levels


@dataclass(frozen=True)
class Problem:
    """What a table is about.

    Attributes:
        costs: The chain.
        parts: Its intervals, equal ones as one.
        levels: Of memory.
        disk_levels: Rising bytes of disk, the first 0; one entry stands for no limit.
        write: Seconds to write each activation, by index; empty without a disk.
        read: Seconds to read it.
    """

    costs: ChainArrays
    parts: Intervals
    levels: Levels
    disk_levels: Ints
    write: NDArray[np.float64]
    read: NDArray[np.float64]

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Where a kept input may wait."""
        return ("ram", "disk") if len(self.write) else ("ram",)

    @property
    def limited(self) -> bool:
        """Whether a quota counts."""
        return len(self.disk_levels) > 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Classes of intervals, levels of disk, levels of memory."""
        return self.parts.count, len(self.disk_levels), self.levels.count


def problem(
    costs: ChainArrays,
    parts: Intervals,
    levels: Levels,
    *,
    disk: DiskCost | None = None,
    disk_levels: Ints | None = None,
) -> Problem:
    """Price every transfer; without ``disk`` there is none.

    What enters a further list does not wait on disk: the model's own code holds it, and no region
    before it could compute it again.
    """
    sizes = [int(size) for size in costs.activation] if disk else []
    write = np.array([disk.write_seconds(size) for size in sizes] if disk else [])
    write[[stop for stop in np.unique(costs.list_stop) if stop < len(write) - 1]] = np.inf
    return Problem(
        costs=costs,
        parts=parts,
        levels=levels,
        disk_levels=np.zeros(1, dtype=np.int64) if disk_levels is None else disk_levels,
        write=write,
        read=np.array([disk.read_seconds(size) for size in sizes] if disk else []),
    )


def disk_levels(sizes: Ints, quota: int | None, units: int) -> Ints:
    """Levels of disk up to a quota; ``[0]`` without one, or where it cannot bind.

    The sums of the sizes if there are at most ``units``, else steps that divide the sizes well.
    """
    if quota is None or quota >= int(sizes.sum()):
        return np.zeros(1, dtype=np.int64)
    sums = np.zeros(1, dtype=np.int64)
    for size in sizes:
        sums = np.unique(np.concatenate([sums, sums + size]))
        sums = sums[sums <= quota]
        if len(sums) > units + 1:
            return _steps(sizes, quota, units)
    return sums if len(sums) > 1 else np.array([0, max(quota, 1)], dtype=np.int64)


def _steps(sizes: Ints, quota: int, units: int) -> Ints:
    smallest = max(1, -(-quota // units))
    tried = {smallest, *(-(-int(sizes.max()) // parts) for parts in range(1, units + 1))}
    steps = [step for step in sorted(tried) if smallest <= step <= max(smallest, int(sizes.max()))]
    step = min(steps, key=lambda step: (int((-sizes % step).sum()), -step))
    if quota < step:
        return np.array([0, max(quota, 1)], dtype=np.int64)
    return np.arange(quota // step + 1, dtype=np.int64) * step
