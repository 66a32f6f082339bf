"""Time against memory: the optimal schedules from the floor to store-all, and fixed policies."""

from collections.abc import Callable, Iterable

from thetaone.records import Chain, DiskCost, Frontier, FrontierPoint, Schedule
from thetaone.rematerialization.planning._plan import planner
from thetaone.rematerialization.planning._policies import (
    per_block,
    periodic,
    square_root,
    store_all,
)
from thetaone.rematerialization.planning._two_tier import two_tier_planner


def frontier(
    chain: Chain,
    *,
    points: int = 24,
    chosen: Schedule | None = None,
    memory_units: int = 500,
    disk: DiskCost | None = None,
) -> Frontier:
    """Plan a chain for budgets between its floor and store-all, evenly spaced on a log scale.

    Args:
        chain: What each stage costs.
        points: Budgets tried [count], >= 2; budgets with the same schedule give one point.
        chosen: A schedule to mark.
        memory_units: Levels of memory in the planner's table [count].
        disk: A second tier; the schedules that use it are shown beside those in memory alone.

    Returns:
        The optimal points by rising bytes, fixed policies beside them.

    Examples:
        >>> from thetaone.records import Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=1,
        ...               tape_bytes=16)
        >>> found = frontier(Chain(input_bytes=1, stages=(stage,) * 12))
        >>> found.floor_bytes, found.points[0].peak_bytes, found.points[-1].forwards
        (19, 19, 12)
    """
    known = planner(chain, memory_units)
    low, high = known.floor_bytes, known.store_all.peak_bytes
    helped: tuple[FrontierPoint, ...] = ()
    if disk is not None:
        both = two_tier_planner(chain, disk, memory_units)
        least = min(schedule.peak_bytes for schedule in both.floors)
        helped = _falling("optimal, with disk", both.plan, least, high, points, used=True)
    return Frontier(
        points=_falling("optimal", known.plan, low, high, points),
        policies=tuple(point(schedule.policy, schedule) for schedule in _policies(chain)),
        disk_points=helped,
        store_all_bytes=high,
        floor_bytes=low,
        chosen=None if chosen is None else point("chosen", chosen),
    )


def _falling(
    label: str,
    made: Callable[[int], Schedule],
    low: int,
    high: int,
    points: int,
    *,
    used: bool = False,
) -> tuple[FrontierPoint, ...]:
    """Schedules for budgets between two that are faster than what fits less.

    With ``used``, only those that have something on disk: the others are the same without.
    """
    budgets = {round(low * (high / low) ** (i / max(1, points - 1))) for i in range(points)}
    found: list[FrontierPoint] = []
    for budget in sorted(budgets | {low, high}):
        schedule = made(max(low, min(high, budget)))
        if used and not schedule.disk_writes:
            continue
        if not found or schedule.total_seconds < found[-1].total_seconds:
            found.append(point(label, schedule))
    return tuple(found)


def point(label: str, schedule: Schedule) -> FrontierPoint:
    """A schedule as a point of the plane."""
    return FrontierPoint(
        label=label,
        total_seconds=schedule.total_seconds,
        peak_bytes=schedule.peak_bytes,
        forwards=schedule.forwards,
        loads=schedule.loads,
    )


def _policies(chain: Chain) -> Iterable[Schedule]:
    yield store_all(chain)
    if not chain.separate:
        yield square_root(chain)
    yield per_block(chain)
    if chain.length > 2 and not chain.separate:
        every = max(2, round(chain.length**0.5))
        yield periodic(chain, every, reload="layer")
