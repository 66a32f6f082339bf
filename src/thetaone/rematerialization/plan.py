"""The call: the fastest persistent schedule of a chain within a budget."""

from collections import OrderedDict
from typing import Any

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records.chain import Chain
from thetaone.records.schedule import Region, Schedule
from thetaone.records.units import parse_bytes
from thetaone.rematerialization.costs import Intervals, chain_arrays, intervals
from thetaone.rematerialization.floor import Floor, memory_floor
from thetaone.rematerialization.levels import memory_levels
from thetaone.rematerialization.persistent import solve
from thetaone.rematerialization.policies import judged, store_all

SHORT, SHORT_TRIES, LONG_TRIES = 256, 64, 2  # levels above the budget whose exact peak is judged
OPERATIONS = 2e10  # additions that a table may take, about half a minute
_CACHE_BYTES = 64 * 2**20
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
            chains of unlike blocks get fewer; ``policy`` of the schedule says how many.

    Returns:
        A schedule with exact seconds, peak bytes, forwards and loads.

    Raises:
        BudgetTooSmallError: No schedule fits; the floor it names does.
        InputError: The budget is not a quantity of bytes or a fraction, or too few units.

    Example:
        >>> from thetaone.records.chain import Chain, Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0,
        ...               output_bytes=1, tape_bytes=16)
        >>> chain = Chain(input_bytes=1, stages=(stage,) * 24)
        >>> plan(chain, 386).forwards, plan(chain, 64).forwards
        (24, 45)

    Source: hal-02352969, section 4.
    """
    if disk is not None:
        from thetaone.rematerialization.two_tier import plan_with_disk  # it calls back for memory

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
    if made.table.seconds.nbytes <= _CACHE_BYTES:
        _cache[key] = made
        while len(_cache) > 4:
            _cache.popitem(last=False)
    return made


def affordable_units(parts: Intervals, length: int, units: int) -> int:
    """Fewer memory levels where a long chain of unlike blocks would take minutes to plan."""
    return max(8, min(units, int(3 * OPERATIONS / (parts.count * length))))


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
        self.floor = self._floor(memory_floor(costs, parts), parts)
        units = affordable_units(parts, chain.length, memory_units)
        levels = memory_levels(costs, self.store_all.peak_bytes, units)
        self.table = solve(costs, parts, levels)
        self.policy = (
            f"fastest persistent schedule (additive costs, {memory_units} memory units, no disk)"
        )
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
        if budget < self.floor.peak_bytes:
            raise BudgetTooSmallError(
                budget_bytes=budget,
                floor_bytes=self.floor.peak_bytes,
                where=self._peak_stage(self.floor),
            )
        best = self.store_all if self.store_all.peak_bytes <= budget else self._fastest(budget)
        return best.model_copy(update={"policy": self.policy, "budget_bytes": budget})

    def _fastest(self, budget: int) -> Schedule:
        levels, best = self.table.levels, self.floor
        tries = SHORT_TRIES if self.chain.length <= SHORT else LONG_TRIES
        waste = min(levels.waste, tries * int(levels.values[-1] - levels.values[-2]))
        for level in reversed(self.steps):
            if levels.values[level] - waste > budget:
                continue  # so much rounding is not given back
            candidate = self.at_level(level)
            if candidate.peak_bytes <= budget:
                return min(candidate, best, key=lambda schedule: schedule.total_seconds)
        return best

    def at_level(self, level: int) -> Schedule:
        """The schedule of one level of the table, judged."""
        if level not in self._traced:
            regions = self.table.regions(level)
            self._traced[level] = judged(self.chain, regions, policy=self.policy)
        return self._traced[level]

    def _floor(self, floor: Floor, parts: Intervals) -> Schedule:
        found: list[Region] = []
        pending = [(0, self.chain.length - 1)]
        while pending:
            s, t = pending.pop()
            split = int(floor.split[parts.by_start[s, t]])
            if split == 0:
                if t > s:
                    pending.append((s + 1, t))
                continue
            found.append(Region(start=s, stop=s + split))
            pending += [(s, s + split - 1), (s + split, t)]
        return judged(self.chain, found, policy="least memory")

    def _peak_stage(self, schedule: Schedule) -> str:
        from thetaone.rematerialization.simulator import simulate

        return simulate(self.chain, schedule).peak_stage
