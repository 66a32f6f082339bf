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
        >>> line = frontier(Chain(input_bytes=1, stages=(stage,) * 12))
        >>> line.floor_bytes, line.points[0].peak_bytes, line.points[-1].forwards
        (19, 19, 12)
    """
    alone = planner(chain, memory_units)
    low, high = alone.floor_bytes, alone.store_all.peak_bytes
    with_disk: tuple[FrontierPoint, ...] = ()
    if disk is not None:
        both = planner(chain, memory_units, disk)
        budgets = _budgets(both.floor_bytes, high, points)
        with_disk = _falling("optimal, with disk", both.plan, budgets, used=True)
    return Frontier(
        points=_falling("optimal", alone.plan, _budgets(low, high, points)),
        policies=tuple(point(schedule.policy, schedule) for schedule in _policies(chain)),
        disk_points=with_disk,
        store_all_bytes=high,
        floor_bytes=low,
        chosen=None if chosen is None else point("chosen", chosen),
    )


def _budgets(low: int, high: int, points: int) -> list[int]:
    """Bytes from one to the other, evenly spaced on a log scale, rising."""
    between = {round(low * (high / low) ** (i / max(1, points - 1))) for i in range(points)}
    return sorted({max(low, min(high, budget)) for budget in between} | {low, high})


def _falling(
    label: str, plan: Callable[[int], Schedule], budgets: Iterable[int], *, used: bool = False
) -> tuple[FrontierPoint, ...]:
    """Schedules for rising budgets that are faster than what fits less.

    With ``used``, only those that have something on disk: the others are the same without.
    """
    points: list[FrontierPoint] = []
    for budget in budgets:
        schedule = plan(budget)
        if used and not schedule.disk_writes:
            continue
        if not points or schedule.total_seconds < points[-1].total_seconds:
            points.append(point(label, schedule))
    return tuple(points)


def point(label: str, schedule: Schedule) -> FrontierPoint:
    """A schedule as a point of the plane."""
    return FrontierPoint(label=label, **schedule.step_cost)


def _policies(chain: Chain) -> Iterable[Schedule]:
    one_list = not (chain.separate or chain.lists)
    one_list &= all(stage.recomputable for stage in chain.stages)
    yield store_all(chain)
    if one_list:
        yield square_root(chain)
    yield per_block(chain)
    if chain.length > 2 and one_list:
        every = max(2, round(chain.length**0.5))
        yield periodic(chain, every, reload="layer")
