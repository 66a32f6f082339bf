"""The call behind ``plan(…, disk=…)``: the fastest schedule over memory and disk."""

from collections import OrderedDict
from pathlib import Path

import numpy as np

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import Chain, DiskCost, Schedule
from thetaone.rematerialization.disk import DiskTier
from thetaone.rematerialization.planning._costs import Ints, chain_arrays
from thetaone.rematerialization.planning._disk_floor import floor_regions
from thetaone.rematerialization.planning._grouped import groups, table_size, within_groups
from thetaone.rematerialization.planning._levels import memory_levels
from thetaone.rematerialization.planning._plan import (
    CACHE_BYTES,
    budget_bytes,
    planner,
    worth_judging,
)
from thetaone.rematerialization.planning._policies import judged
from thetaone.rematerialization.planning._simulator import simulate
from thetaone.rematerialization.planning._two_tier_table import Table, disk_levels, problem, solve

DISK_UNITS = 32
_cache: OrderedDict[tuple[str, int, str], "TwoTierPlanner"] = OrderedDict()


def plan_with_disk(
    chain: Chain,
    budget: int | float | str,
    *,
    disk: DiskCost | DiskTier | str | Path,
    memory_units: int = 500,
) -> Schedule:
    """The fastest persistent schedule whose peak stays within a budget, with a disk tier.

    Optimal among persistent schedules, for additive costs and synchronous transfers, memory
    discretised in ``memory_units`` levels. A quota that binds is discretised too, in at most 32
    levels of disk. The peak that is reported is exact in bytes. A larger budget never gives a
    slower schedule, and no schedule is slower than the one without a disk.

    Args:
        chain: What each stage costs.
        budget: As for ``plan``.
        disk: A directory, a ``DiskTier``, or what transfers cost; a tier measures itself.
        memory_units: Levels of memory in the table [count], >= 8.

    Raises:
        BudgetTooSmallError: No schedule fits; the floor it names does.
        InputError: The budget or the disk is not one.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0,
        ...               output_bytes=2, tape_bytes=16)
        >>> chain = Chain(input_bytes=2, stages=(stage,) * 12)
        >>> disk = DiskCost(write_bytes_per_second=40.0, read_bytes_per_second=40.0)
        >>> schedule = plan_with_disk(chain, 28, disk=disk)
        >>> schedule.forwards, schedule.disk_writes, schedule.peak_bytes <= 28
        (23, 7, True)
    """
    if chain.separate:
        raise InputError(
            f"disk={disk!r}: {chain.separate}, so its blocks are recomputed one by one from inputs "
            "that its own code holds, and nothing can wait on disk: plan without disk"
        )
    cost = disk_cost(disk)
    return two_tier_planner(chain, cost, memory_units).plan(budget_bytes(chain, budget))


def two_tier_planner(chain: Chain, disk: DiskCost, memory_units: int = 500) -> "TwoTierPlanner":
    """The planner of a chain and a disk; small tables are kept, so that asking again is cheap."""
    key = (chain.fingerprint, memory_units, disk.to_json())
    if key in _cache:
        return _cache[key]
    made = TwoTierPlanner(chain, disk, memory_units)
    if sum(table.nbytes for table in made.tables) <= CACHE_BYTES:
        _cache[key] = made
        while len(_cache) > 2:
            _cache.popitem(last=False)
    return made


def disk_cost(disk: DiskCost | DiskTier | str | Path) -> DiskCost:
    """What transfers cost; a directory or a tier is measured.

    Raises:
        InputError: Neither of these.
        DiskTierError: The directory cannot be written.
    """
    if isinstance(disk, DiskCost):
        return disk
    if isinstance(disk, str | Path):
        with DiskTier(disk) as tier:
            return tier.cost
    if isinstance(disk, DiskTier):
        return disk.cost
    raise InputError(f"disk={disk!r}: give a directory, a DiskTier or a DiskCost")


class TwoTierPlanner:
    """The tables of one chain and one disk, and the schedules read from them.

    Candidates do not depend on the budget, so a larger one never gives a slower plan.

    Args:
        chain: What each stage costs.
        disk: What transfers cost, and the quota.
        memory_units: Levels of memory [count], >= 8.
    """

    def __init__(self, chain: Chain, disk: DiskCost, memory_units: int = 500) -> None:
        self.chain, self.disk = chain, disk
        self.memory_only = planner(chain, memory_units)
        self.unlimited = disk.model_copy(update={"quota_bytes": None})
        self.tables = [self._table(disk_levels(_outputs(chain), None, DISK_UNITS), memory_units)]
        within_quota = disk_levels(_outputs(chain), disk.quota_bytes, DISK_UNITS)
        if len(within_quota) > 1:
            self.tables.append(self._table(within_quota, memory_units))
        last = self.tables[-1].given
        notes = [f"additive costs, synchronous transfers, {last.levels.count} memory units"]
        notes += [f"{len(within_quota) - 1} disk units"] if last.limited else []
        together = -(-chain.length // last.costs.length)
        notes += [f"{together} neighbours as one"] if together > 1 else []
        self.policy = f"fastest persistent schedule over memory and disk ({', '.join(notes)})"
        self._judged: dict[tuple[int, int], Schedule] = {}
        whole = problem(
            chain_arrays(chain),
            self.memory_only.parts,
            last.levels,
            disk,
            np.zeros(1, dtype=np.int64),
        )
        least = judged(chain, floor_regions(whole), policy=self.policy, disk=self.unlimited)
        self.floors = [self.memory_only.floor, *self._within_quota(least)]
        if last.limited:
            self.floors += self._least_level(self.tables[-1])

    def _table(self, disk_levels: Ints, memory_units: int) -> Table:
        """The table with these levels of disk; long chains of unlike blocks go in groups."""
        chain, disk = self.chain, self.unlimited
        costs, parts = chain_arrays(chain), self.memory_only.parts
        size, units = table_size(chain, parts, memory_units, 2 * len(disk_levels))
        levels = memory_levels(costs, self.memory_only.store_all.peak_bytes, units)
        if size == 1:
            return solve(problem(costs, parts, levels, disk, disk_levels))
        costs, parts = groups(chain, size)
        leaves = within_groups(
            chain,
            size,
            lambda inner, its_parts: solve(problem(inner, its_parts, levels, disk, disk_levels)),
        )
        return solve(problem(costs, parts, levels, disk, disk_levels, leaves))

    def plan(self, budget: int) -> Schedule:
        """The fastest candidate within ``budget`` bytes.

        Raises:
            BudgetTooSmallError: The least peak of all candidates is above the budget.
        """
        floor = min(self.floors, key=lambda schedule: schedule.peak_bytes)
        if budget < floor.peak_bytes:
            where = simulate(self.chain, floor, disk=self.disk).peak_stage
            raise BudgetTooSmallError(
                budget_bytes=budget, floor_bytes=floor.peak_bytes, where=where
            )
        found = [schedule for schedule in self.floors if schedule.peak_bytes <= budget]
        if self.memory_only.floor_bytes <= budget:
            found.append(self.memory_only.plan(budget))
        for number, table in enumerate(self.tables):
            found += self._fastest(number, table, budget)
        best = min(found, key=lambda schedule: (schedule.total_seconds, schedule.disk_writes))
        update = {"policy": self.policy, "budget_bytes": budget, "disk": self.disk}
        return best.model_copy(update=update)

    def _fastest(self, number: int, table: Table, budget: int) -> list[Schedule]:
        """The schedule of the highest level of a table that fits in bytes and in the quota."""
        seconds, levels = table.whole()[-1], table.given.levels
        previous = np.concatenate([[np.inf], seconds[:-1]])
        steps: list[int] = np.flatnonzero(seconds < previous).tolist()
        for level in worth_judging(steps, levels, self.chain.length, budget):
            found = self._within_quota(self._at(number, table, level))
            if found and found[0].peak_bytes <= budget:
                return found
        return []

    def _least_level(self, table: Table) -> list[Schedule]:
        fits = np.flatnonzero(np.isfinite(table.whole()[-1]))
        if not len(fits):
            return []
        return self._within_quota(self._at(len(self.tables) - 1, table, int(fits[0])))

    def _at(self, number: int, table: Table, level: int) -> Schedule:
        if (number, level) not in self._judged:
            regions = table.regions(len(table.given.disk_levels) - 1, level)
            schedule = judged(self.chain, regions, policy=self.policy, disk=self.unlimited)
            self._judged[number, level] = schedule
        return self._judged[number, level]

    def _within_quota(self, schedule: Schedule) -> list[Schedule]:
        quota = self.disk.quota_bytes
        return [schedule] if quota is None or schedule.disk_bytes <= quota else []


def _outputs(chain: Chain) -> Ints:
    """Bytes of every activation that may go to disk."""
    return np.array(chain.activation_bytes[1:], dtype=np.int64)
