"""The call: the fastest persistent schedule of a chain within a budget."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import Chain, Region, Schedule, parse_bytes
from thetaone.rematerialization.planning._costs import chain_arrays, intervals
from thetaone.rematerialization.planning._floor import memory_floor
from thetaone.rematerialization.planning._grouped import solve_grouped, table_size
from thetaone.rematerialization.planning._levels import Levels, memory_levels
from thetaone.rematerialization.planning._persistent import solve
from thetaone.rematerialization.planning._policies import judged, store_all

TRIES = 64  # levels above the budget whose exact peak may fit it after all
SHORT = 256  # stages; in longer chains only every fourth of these levels is judged
CACHE_BYTES = 64 * 2**20
_cache: OrderedDict[tuple[str, int], "Planner"] = OrderedDict()


def plan(
    chain: Chain, budget: int | float | str, *, disk: Any = None, memory_units: int = 500
) -> Schedule:
    """The fastest persistent schedule whose peak stays within a budget.

    Optimal among persistent schedules, for additive measured costs, with memory discretised in
    ``memory_units`` levels: sizes are rounded up, the budget down, and the peak that is reported
    is exact in bytes. A larger budget never gives a slower schedule.

    Args:
        chain: What each stage costs.
        budget: Bytes that the chain may hold beyond its own input: an integer, text such as
            ``"2GiB"``, or a float in (0, 1], a fraction of what store-all holds.
        disk: A second tier for kept activations: a directory, a ``DiskTier`` or a ``DiskCost``;
            None plans in memory alone.
        memory_units: Levels of memory in the table [count], >= 8; more is finer and slower. Long
            chains get four levels a stage; in chains of several hundred unlike blocks these are
            fewer and neighbours are planned as one. ``policy`` of the schedule says so.

    Returns:
        A schedule with exact seconds, peak bytes, forwards and loads.

    Raises:
        BudgetTooSmallError: No schedule fits; the floor it names does.
        InputError: The budget is not a quantity of bytes or a fraction, or too few units.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0,
        ...               output_bytes=1, tape_bytes=16)
        >>> chain = Chain(input_bytes=1, stages=(stage,) * 24)
        >>> plan(chain, 386).forwards, plan(chain, 64).forwards
        (24, 45)

    Source: hal-02352969, section 4.
    """
    if disk is not None:
        from thetaone.rematerialization.planning._two_tier import (
            plan_with_disk,  # it calls back for memory
        )

        return plan_with_disk(chain, budget, disk=disk, memory_units=memory_units)
    return planner(chain, memory_units).plan(budget_bytes(chain, budget))


def budget_bytes(chain: Chain, budget: int | float | str) -> int:
    """A budget in bytes: as given, ``"2GiB"``, or a fraction of store-all.

    Raises:
        InputError: Not a quantity of bytes, or a fraction outside (0, 1].
    """
    if isinstance(budget, bool):
        raise InputError(f"budget={budget}: need bytes, e.g. '512MiB', or a fraction in (0, 1]")
    if not isinstance(budget, float):
        return parse_bytes(budget)
    if 0 < budget <= 1:
        return int(budget * store_all(chain).peak_bytes)
    if not budget.is_integer():
        raise InputError(f"budget={budget}: a fraction of store-all lies in (0, 1]")
    return parse_bytes(int(budget))


def planner(chain: Chain, memory_units: int = 500) -> "Planner":
    """The planner of a chain; small tables are kept, so that asking again costs nothing."""
    key = (chain.fingerprint, memory_units)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    made = Planner(chain, memory_units)
    if made.table.swept.nbytes <= CACHE_BYTES:
        _cache[key] = made
        while len(_cache) > 4:
            _cache.popitem(last=False)
    return made


def worth_judging(steps: Sequence[int], levels: Levels, length: int, budget: int) -> Iterator[int]:
    """Levels whose schedule may fit a budget once it is judged in bytes, the fastest first.

    Args:
        steps: Levels at which a table gets faster, rising.
        levels: Of memory.
        length: Stages of the chain [count].
        budget: What must hold the schedule [bytes].
    """
    every = 1 if length <= SHORT else 4
    waste = min(levels.waste, TRIES * int(levels.values[-1] - levels.values[-2]))
    for level in reversed(steps):
        if levels.values[level] - waste > budget:
            continue  # so much rounding is not given back
        if levels.values[level] <= budget or level % every == 0:
            yield level


class Planner:
    """The table of one chain, and the schedules read from it.

    Candidates do not depend on the budget: one schedule for each level of memory, store-all and
    the floor. The plan for a budget is the fastest candidate whose exact peak fits, hence monotone.

    Args:
        chain: What each stage costs.
        memory_units: Levels of memory [count], >= 8.
    """

    def __init__(self, chain: Chain, memory_units: int = 500) -> None:
        if memory_units < 8:
            raise InputError(f"memory_units={memory_units}: need at least 8 levels")
        self.chain = chain
        costs, parts = chain_arrays(chain), intervals(chain)
        self.store_all = store_all(chain)
        self.parts, self._floor = parts, memory_floor(costs, parts)
        self.floor_bytes = int(self._floor.peak[parts.by_start[0, -1]])
        size, units = table_size(chain, parts, memory_units)
        levels = memory_levels(costs, self.store_all.peak_bytes, units)
        if size == 1:
            self.table = solve(costs, parts, levels)
        else:
            self.table = solve_grouped(chain, size, levels)
        kind = "choice of blocks recomputed one by one" if chain.separate else "persistent schedule"
        notes = [f"additive costs, {units} memory units, no disk"]
        notes += [f"{size} neighbours as one"] if size > 1 else []
        notes += [chain.separate] if chain.separate else []
        self.policy = f"fastest {kind} ({', '.join(notes)})"
        seconds = self.table.whole()
        # a level is a step when nothing faster fits below it
        self.steps = [
            level
            for level in range(len(seconds))
            if seconds[level] < (seconds[level - 1] if level else float("inf"))
        ]
        self._traced: dict[int, Schedule] = {}

    def plan(self, budget: int) -> Schedule:
        """The fastest candidate within ``budget`` bytes.

        Raises:
            BudgetTooSmallError: The floor is above the budget.
        """
        if budget < self.floor_bytes:
            raise BudgetTooSmallError(
                budget_bytes=budget,
                floor_bytes=self.floor_bytes,
                where=self._peak_stage(self.floor),
            )
        best = self.store_all if self.store_all.peak_bytes <= budget else self._fastest(budget)
        return best.model_copy(update={"policy": self.policy, "budget_bytes": budget})

    def _fastest(self, budget: int) -> Schedule:
        for level in worth_judging(self.steps, self.table.levels, self.chain.length, budget):
            found = self.at_level(level)
            if found.peak_bytes <= budget:
                slowest = float(self._floor.seconds[self.parts.by_start[0, -1]])
                return found if found.total_seconds < slowest else self.floor
        return self.floor

    def at_level(self, level: int) -> Schedule:
        """The schedule of one level of the table, judged."""
        if level not in self._traced:
            regions = self.table.regions(level)
            self._traced[level] = judged(self.chain, regions, policy=self.policy)
        return self._traced[level]

    @cached_property
    def floor(self) -> Schedule:
        """The fastest schedule of least peak; judged when first asked for, as it may be long."""
        found: list[Region] = []
        pending = [(0, self.chain.length - 1)]
        while pending:
            s, t = pending.pop()
            split = int(self._floor.split[self.parts.by_start[s, t]])
            if split == 0:
                if t > s:
                    pending.append((s + 1, t))
                continue
            found.append(Region(start=s, stop=s + split))
            pending += [(s, s + split - 1), (s + split, t)]
        return judged(self.chain, found, policy="least memory")

    def _peak_stage(self, schedule: Schedule) -> str:
        from thetaone.rematerialization.planning._simulator import simulate

        return simulate(self.chain, schedule).peak_stage
