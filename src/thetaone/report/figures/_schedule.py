"""A schedule without its chain: the nested regions, and how often each stage runs."""

from thetaone.records import Schedule
from thetaone.report.drawing import Bars, Figure, Panel, Series, category_axis, linear_axis


def schedule_figure(schedule: Schedule) -> Figure:
    """Regions by depth of nesting over the stages, and forward executions of each stage.

    Args:
        schedule: What the planner decided.

    Returns:
        The figure: left the regions (each keeps its own input), right the executions.
    """
    stages = tuple(range(schedule.length))
    x = linear_axis("stage", [-0.5, schedule.length - 0.5], quantity="count", pad=0.0)
    depths = _depths(schedule)
    rows = max(depths, default=0) + 1
    regions = Panel(
        title="Regions that run without a tape",
        x=x,
        y=category_axis([f"depth {row + 1}" for row in range(rows)]),
        bars=tuple(_tier(schedule, depths, rows, tier) for tier in ("ram", "disk")),
        height=max(240, 30 * rows + 110),
    )
    executions = Panel(
        title="Forward executions in one step",
        x=x,
        y=linear_axis("executions", [0, *schedule.executions], quantity="count", floor=0.0),
        series=(
            Series(
                name="executions",
                x=tuple(map(float, stages)),
                y=tuple(map(float, schedule.executions)),
                colour="mup",
                symbol="circle",
                dash="none",
                legend=False,
            ),
        ),
        height=regions.height,
    )
    recomputed = schedule.forwards - schedule.length
    alt = (
        f"{schedule.policy}: {len(schedule.regions)} regions, {schedule.forwards} forwards of "
        f"{schedule.length} stages, {recomputed} of them recomputed."
    )
    return Figure(key="schedule", title=schedule.policy, alt=alt, panels=(regions, executions))


def _tier(schedule: Schedule, depths: list[int], rows: int, tier: str) -> Bars:
    mine = [index for index, region in enumerate(schedule.regions) if region.tier == tier]
    return Bars(
        name=f"input kept in {tier}",
        left=tuple(schedule.regions[i].start - 0.5 for i in mine),
        right=tuple(schedule.regions[i].stop - 0.5 for i in mine),
        y=tuple(float(rows - 1 - depths[i]) for i in mine),
        colour="forward" if tier == "ram" else "recompute",
        pattern="" if tier == "ram" else "/",
    )


def _depths(schedule: Schedule) -> list[int]:
    depths: list[int] = []
    enclosing: list[int] = []
    for region in schedule.regions:
        while enclosing and enclosing[-1] <= region.start:
            enclosing.pop()
        depths.append(len(enclosing))
        enclosing.append(region.stop)
    return depths
