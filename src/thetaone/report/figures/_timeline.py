"""One training step of a plan: what runs when, and the bytes alive meanwhile."""

from collections.abc import Sequence

from thetaone.records import Timeline, format_bytes
from thetaone.report.drawing import (
    Axis,
    Bars,
    Figure,
    Panel,
    Pattern,
    Reference,
    Series,
    category_axis,
    linear_axis,
)

# kind -> (legend, role of the colour, hatching)
KINDS: dict[str, tuple[str, str, Pattern]] = {
    "first": ("forward", "forward", ""),
    "again": ("recomputed forward", "recompute", "/"),
    "backward": ("backward", "backward", "x"),
    "transfer": ("load or disk transfer", "budget", "."),
}


def timeline_figure(
    timeline: Timeline,
    *,
    stage_names: Sequence[str] = (),
    budget_bytes: int | None = None,
) -> Figure:
    """Operations by stage over time, and the bytes alive while each of them lasts.

    Args:
        timeline: The judge's replay of one step.
        stage_names: Name of each stage; numbers when empty.
        budget_bytes: The planner's budget, drawn as a line [bytes].

    Returns:
        The figure: the left panel is the plan, the right one its memory.
    """
    count = max(timeline.stages, default=0) + 1
    names = tuple(stage_names) or tuple(f"stage {index}" for index in range(count))
    ends = [s + d for s, d in zip(timeline.starts, timeline.seconds, strict=True)]
    x = linear_axis("time in one step", [0.0, *ends], quantity="seconds", pad=0.02, floor=0.0)
    plan = Panel(
        title="What runs",
        x=x,
        y=_rows(names),
        bars=_bars(timeline, len(names)),
        height=min(560, max(300, 22 * len(names) + 80)),
    )
    memory = _memory(timeline, x, budget_bytes, plan.height)
    alt = _sentence(timeline, budget_bytes)
    title = "The chosen plan, operation by operation"
    return Figure(key="timeline", title=title, alt=alt, panels=(plan, memory))


def operation_kinds(timeline: Timeline) -> tuple[str, ...]:
    """Kind of each operation: ``first``, ``again`` (a stage that ran before), ``backward``, ….

    Examples:
        >>> operation_kinds(Timeline(operations=("forward", "tape"), stages=(0, 0)))
        ('first', 'again')
    """
    seen: set[int] = set()
    kinds: list[str] = []
    for operation, stage in zip(timeline.operations, timeline.stages, strict=True):
        if operation in ("forward", "tape"):
            kinds.append("again" if stage in seen else "first")
            seen.add(stage)
        else:
            kinds.append("backward" if operation == "backward" else "transfer")
    return tuple(kinds)


def _bars(timeline: Timeline, count: int) -> tuple[Bars, ...]:
    kinds = operation_kinds(timeline)
    bars: list[Bars] = []
    for kind, (name, colour, pattern) in KINDS.items():
        mine = [index for index, other in enumerate(kinds) if other == kind]
        mine = [index for index in mine if timeline.seconds[index] > 0]  # free loads take no room
        if mine:
            bars.append(
                Bars(
                    name=name,
                    left=tuple(timeline.starts[i] for i in mine),
                    right=tuple(timeline.starts[i] + timeline.seconds[i] for i in mine),
                    y=tuple(float(count - 1 - timeline.stages[i]) for i in mine),
                    colour=colour,
                    pattern=pattern,
                )
            )
    return tuple(bars)


def _memory(timeline: Timeline, x: Axis, budget_bytes: int | None, height: int) -> Panel:
    end = timeline.starts[-1] + timeline.seconds[-1] if timeline.starts else 1.0
    peak = max(timeline.live_bytes, default=0)
    drawn = [  # what takes no time has no width, and is left out unless it is the peak itself
        (start, float(live))
        for start, took, live in zip(
            timeline.starts, timeline.seconds, timeline.live_bytes, strict=True
        )
        if took > 0 or live == peak
    ]
    last = drawn[-1][1] if drawn else 0.0
    budget = () if budget_bytes is None else (budget_bytes,)
    return Panel(
        title="Bytes alive",
        x=x,
        y=linear_axis("bytes alive", [*timeline.live_bytes, *budget], quantity="bytes", floor=0.0),
        series=(
            Series(
                name="bytes alive",
                x=(*(start for start, _ in drawn), end),
                y=(*(live for _, live in drawn), last),
                colour="mup",
                symbol="none",
                steps=True,
                area=True,
                legend=False,
            ),
        ),
        references=tuple(
            Reference(axis="y", value=b, label="budget", colour="budget") for b in budget
        ),
        height=height,
    )


def _rows(names: Sequence[str]) -> Axis:
    axis = category_axis(names)
    every = -(-len(names) // 24)  # at most 24 names fit beside the rows
    return Axis(
        label="", range=axis.range, ticks=axis.ticks[::every], quantity="category", log=False
    )


def _sentence(timeline: Timeline, budget_bytes: int | None) -> str:
    kinds = operation_kinds(timeline)
    peak = format_bytes(max(timeline.live_bytes, default=0))
    text = (
        f"{kinds.count('first')} first forwards, {kinds.count('again')} recomputed forwards and "
        f"{kinds.count('backward')} backwards; at most {peak} are alive"
    )
    return text + (f", under a budget of {format_bytes(budget_bytes)}." if budget_bytes else ".")
