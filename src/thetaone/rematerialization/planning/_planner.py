"""The schedules of one chain, read from its table, and the fastest of them within a budget.

Candidates do not depend on the budget: a schedule for each level of the table, fixed policies,
store-all and the floor. The plan is the fastest one whose exact peak fits: a larger budget never
gives a slower plan, and no fixed policy that fits is faster.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import Chain, DiskCost, Schedule, whole_number
from thetaone.rematerialization.planning._bounds import least_seconds
from thetaone.rematerialization.planning._candidates import FixedPolicies
from thetaone.rematerialization.planning._policies import judged, store_all
from thetaone.rematerialization.planning._simulator import simulate
from thetaone.rematerialization.planning.table import (
    Ints,
    Levels,
    Table,
    chain_arrays,
    chain_intervals,
    disk_levels,
    exact_levels,
    memory_floor,
    memory_levels,
    problem,
    solve_grouped,
    table_size,
)

TRIES = 64  # levels above the budget whose exact peak may fit it after all
SHORT = 256  # stages; in longer chains only every fourth of these levels is judged
MOST_UNITS = 1_000_000  # levels of memory: no finer than a byte in a megabyte
DISK_UNITS = 32  # levels of a quota that binds


class Planner:
    """The table of one chain, and the schedules read from it.

    Args:
        chain: What each stage costs.
        memory_units: Least number of memory levels [count], 8 to a million.
        disk: What transfers cost, and the quota; None plans in memory alone.

    Raises:
        InputError: Too few units or too many, or a disk for blocks that only memory can hold.
    """

    def __init__(
        self, chain: Chain, memory_units: int = 500, *, disk: DiskCost | None = None
    ) -> None:
        memory_units = whole_number(memory_units, where="memory_units", least=8, most=MOST_UNITS)
        if disk is not None and chain.separate:
            raise InputError(
                f"disk: {chain.separate}, so its blocks are recomputed one by one from inputs "
                "that its own code holds, and nothing can wait on disk: plan without disk"
            )
        self.chain, self.memory_units, self.disk = chain, memory_units, disk
        self.unlimited = disk.model_copy(update={"quota_bytes": None}) if disk else None
        self.store_all = store_all(chain)
        self.memory_only = Planner(chain, memory_units) if disk else None
        self._judged: dict[tuple[int, int], Schedule] = {}

    def plan(self, budget: int) -> Schedule:
        """The fastest candidate within ``budget`` bytes.

        Raises:
            BudgetTooSmallError: The floor is above the budget.
        """
        update = {"budget_bytes": budget, "disk": self.disk}
        if self.store_all.peak_bytes <= budget:
            policy = self._described(["every tape fits"])
            bound = self.store_all.total_seconds
            return self.store_all.model_copy(
                update=update | {"policy": policy, "bound_seconds": bound}
            )
        best = self._fastest(budget)
        if best is None:
            floor = self.floor
            where = simulate(self.chain, floor, disk=self.disk).peak_stage
            raise BudgetTooSmallError(
                budget_bytes=budget, floor_bytes=floor.peak_bytes, where=where
            )
        bound = min(best.total_seconds, self._bound(budget))
        return best.model_copy(update=update | {"policy": self.policy, "bound_seconds": bound})

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The table without a quota and, where one binds, the table within it."""
        outputs = np.array(self.chain.activation_bytes[1:], dtype=np.int64)
        tables = [self._table(disk_levels(outputs, None, DISK_UNITS))]
        quota = self.disk.quota_bytes if self.disk else None
        within_quota = disk_levels(outputs, quota, DISK_UNITS)
        if len(within_quota) > 1:
            tables.append(self._table(within_quota))
        return tuple(tables)

    @property
    def table(self) -> Table:
        """The table without a quota."""
        return self.tables[0]

    @property
    def exact(self) -> bool:
        """Whether the table rounds nothing and plans every stage by itself."""
        return self.table.problem.levels.exact and self.table.leaves is None

    @property
    def nbytes(self) -> int:
        """Memory of the tables that are filled [bytes]."""
        filled = sum(table.nbytes for table in self.tables) if "tables" in vars(self) else 0
        return filled + (self.memory_only.nbytes if self.memory_only else 0)

    @property
    def floor_bytes(self) -> int:
        """The least peak of all candidates [bytes]."""
        return self.floor.peak_bytes

    @property
    def floor(self) -> Schedule:
        """The candidate of least peak."""
        return min(self.floors, key=lambda schedule: schedule.peak_bytes)

    @cached_property
    def floors(self) -> tuple[Schedule, ...]:
        """The schedules of least peak: in memory alone, with the disk, and within its quota."""
        costs = chain_arrays(self.chain)
        parts = chain_intervals(self.chain, costs)
        nothing = Levels(np.zeros(1, dtype=np.int64))
        least = memory_floor(problem(costs, parts, nothing, disk=self.unlimited))
        schedule = judged(self.chain, least.regions(), policy="least memory", disk=self.unlimited)
        floors = self._within_quota(schedule)
        if self.memory_only:
            floors = [*self.memory_only.floors, *floors]
        if len(self.tables) > 1:
            fits = np.flatnonzero(np.isfinite(self.tables[-1].whole()[-1]))
            least_level = [] if not len(fits) else [self._at(len(self.tables) - 1, int(fits[0]))]
            floors += [one for level in least_level for one in self._within_quota(level)]
        return tuple(floors)

    @cached_property
    def policy(self) -> str:
        """How the schedules are made, and the class within which they are optimal."""
        problem = self.tables[-1].problem
        exact, together = self.exact, -(-self.chain.length // problem.costs.length)
        notes = ["nothing rounded" if exact else f"{problem.levels.count} memory units"]
        notes += [f"{len(problem.disk_levels) - 1} disk units"] if problem.limited else []
        notes += [f"{together} neighbours as one"] if together > 1 else []
        return self._described(notes)

    def _described(self, notes: list[str]) -> str:
        costs = ["additive costs", *(["synchronous transfers"] if self.disk else [])]
        where = " over memory and disk" if self.disk else ""
        separate = self.chain.separate
        kind = "choice of blocks recomputed one by one" if separate else "persistent schedule"
        every = [*costs, *notes, *([separate] if separate else [])]
        return f"fastest {kind}{where} ({', '.join(every)})"

    def _table(self, levels_of_disk: Ints) -> Table:
        """The table with these levels of disk; long chains of unlike blocks go in groups."""
        chain, highest = self.chain, self.store_all.peak_bytes
        tiers = 2 if self.disk else 1
        size = table_size(chain, self.memory_units, layers=tiers * len(levels_of_disk))
        levels = None
        if size.together == 1:
            levels = exact_levels(size.costs, highest, most=size.most, disk=self.disk is not None)
        if levels is None:
            levels = memory_levels(chain_arrays(chain), highest, size.levels)
        return solve_grouped(
            chain, size.together, levels, disk=self.unlimited, disk_levels=levels_of_disk,
            grouped=(size.costs, size.parts),
        )  # fmt: skip

    def _fastest(self, budget: int) -> Schedule | None:
        """The fastest candidate that fits."""
        candidates: list[Schedule] = []
        if self.memory_only:
            candidates += [one for one in [self.memory_only._fastest(budget)] if one]
        for number in range(len(self.tables)):
            candidates += self._of_table(number, budget)
        if self.memory_only is None and not self.exact:
            limit = min((one.total_seconds for one in candidates), default=float("inf"))
            if limit > self._bound(budget) * (1 + 1e-9):
                candidates += self._fixed.fastest(budget, limit * (1 - 1e-12))
        if self.memory_only is not None or not candidates or self._may_beat(budget):
            candidates += [one for one in self.floors if one.peak_bytes <= budget]
        return min(candidates, key=lambda one: (one.total_seconds, one.disk_writes), default=None)

    def _may_beat(self, budget: int) -> bool:
        """Whether the floor, where memory is rounded, may be faster than what the table has."""
        if self.exact:
            return False
        costs = chain_arrays(self.chain)
        return self.chain.length <= SHORT or budget < 4 * int(costs.limit_backward.max())

    @cached_property
    def _fixed(self) -> FixedPolicies:
        return FixedPolicies(self.chain)

    def _of_table(self, number: int, budget: int) -> list[Schedule]:
        """The schedule of the highest level of a table that fits in bytes and in the quota."""
        for level in self._worth_judging(number, budget):
            candidate = self._within_quota(self._at(number, level))
            if candidate and candidate[0].peak_bytes <= budget:
                return candidate
        return []

    def _worth_judging(self, number: int, budget: int) -> Iterator[int]:
        """Levels whose schedule may fit a budget once it is judged in bytes, the fastest first."""
        seconds, levels = self.tables[number].whole()[-1], self.tables[number].problem.levels
        faster = np.flatnonzero(seconds < np.concatenate([[np.inf], seconds[:-1]]))
        highest = levels.values[-1] - levels.values[-2] if levels.count > 1 else 0
        waste = min(levels.waste, TRIES * int(highest))
        every = 1 if self.chain.length <= SHORT else 4
        for level in faster[::-1].tolist():
            if levels.values[level] - waste > budget:
                continue  # so much rounding is not given back
            if levels.values[level] <= budget or level % every == 0:
                yield level

    def _at(self, number: int, level: int) -> Schedule:
        """The schedule of one level of a table, judged."""
        if (number, level) not in self._judged:
            table = self.tables[number]
            regions = table.regions(len(table.problem.disk_levels) - 1, level)
            self._judged[number, level] = judged(
                self.chain, regions, policy=self.policy, disk=self.unlimited
            )
        return self._judged[number, level]

    def _within_quota(self, schedule: Schedule) -> list[Schedule]:
        quota = self.disk.quota_bytes if self.disk else None
        return [schedule] if quota is None or schedule.disk_bytes <= quota else []

    def _bound(self, budget: int) -> float:
        """Seconds below which no schedule of the class within the budget comes [s].

        A schedule that fits the budget in bytes fits it and all that rounding wastes in levels.
        """
        bound = least_seconds(chain_arrays(self.chain), budget)
        table, levels = self.table, self.table.problem.levels
        if table.leaves is None:
            level = int(np.searchsorted(levels.values, budget + levels.waste))
            level = levels.at_most(budget) if levels.exact else level
            if level < levels.count:
                bound = max(bound, float(table.whole()[-1][level]) * (1 - 1e-12))
        return bound
