"""Time of a training step against its bytes: what each byte of memory buys."""

from collections.abc import Sequence

from thetaone.records import Frontier, FrontierPoint, format_bytes
from thetaone.report.drawing import Figure, Panel, Reference, Series, Symbol, linear_axis

POLICY_SYMBOLS: tuple[Symbol, ...] = ("triangle", "square", "diamond", "cross")


def frontier_figure(frontier: Frontier, *, budget_bytes: int | None = None) -> Figure:
    """Step time, relative to store-all, against peak bytes: optimal schedules and fixed policies.

    Args:
        frontier: From store-all down to the floor.
        budget_bytes: The planner's budget, drawn as a line [bytes].

    Returns:
        The figure; time is relative because a ratio survives a busy machine.
    """
    fastest = min(point.total_seconds for point in frontier.points)
    optimal = _series("optimal schedules", frontier.points, fastest, "mup", "circle", line=True)
    helped = _with_disk(frontier, fastest)
    policies = _policies(frontier, fastest)
    chosen = _chosen(frontier, fastest)
    drawn = (optimal, *helped, *policies, *chosen)
    bytes_shown = [x for line in drawn for x in line.x]
    budget = () if budget_bytes is None else (budget_bytes,)
    floor = Reference(axis="x", value=frontier.floor_bytes, label="floor", dash="dot")
    lines = tuple(Reference(axis="x", value=b, label="budget", colour="budget") for b in budget)
    panel = Panel(
        title="",
        x=linear_axis("peak memory of the blocks", [*bytes_shown, *budget], quantity="bytes"),
        y=linear_axis("time of a step, store-all = 1", [y for line in drawn for y in line.y]),
        series=drawn,
        references=(floor, *lines),
        height=380,
    )
    alt = _sentence(frontier, budget_bytes)
    return Figure(key="frontier", title="Time against memory", alt=alt, panels=(panel,))


def _series(
    name: str,
    points: Sequence[FrontierPoint],
    fastest: float,
    colour: str,
    symbol: Symbol,
    *,
    line: bool = False,
) -> Series:
    ordered = sorted(points, key=lambda point: point.peak_bytes)
    return Series(
        name=name,
        x=tuple(float(point.peak_bytes) for point in ordered),
        y=tuple(point.total_seconds / fastest for point in ordered),
        colour=colour,
        symbol=symbol,
        dash="solid" if line else "none",
        steps=line,
        width=2.0,
        filled=line or symbol == "star",
        notes=tuple(f"{point.label}, {point.forwards} forwards" for point in ordered),
    )


def _with_disk(frontier: Frontier, fastest: float) -> tuple[Series, ...]:
    if not frontier.disk_points:
        return ()
    points = frontier.disk_points
    return (_series("optimal schedules, with disk", points, fastest, "good", "circle", line=True),)


def _policies(frontier: Frontier, fastest: float) -> tuple[Series, ...]:
    families: dict[str, list[FrontierPoint]] = {}
    for point in frontier.policies:  # "sequential 4" and "sequential 6" are of one family
        families.setdefault(point.label.rstrip("0123456789 ="), []).append(point)
    return tuple(
        _series(
            f"{family} (fixed policy)",
            points,
            fastest,
            "sp",
            POLICY_SYMBOLS[i % len(POLICY_SYMBOLS)],
        )
        for i, (family, points) in enumerate(families.items())
    )


def _chosen(frontier: Frontier, fastest: float) -> tuple[Series, ...]:
    if frontier.chosen is None:
        return ()
    return (_series("chosen plan", [frontier.chosen], fastest, "budget", "star"),)


def _sentence(frontier: Frontier, budget_bytes: int | None) -> str:
    fastest = min(point.total_seconds for point in frontier.points)
    slowest = max(point.total_seconds for point in frontier.points) / fastest
    text = (
        f"Store-all peaks at {format_bytes(frontier.store_all_bytes)}; the least possible peak is "
        f"{format_bytes(frontier.floor_bytes)}, at {slowest:.2f} times the time."
    )
    if frontier.disk_points:
        least = min(point.peak_bytes for point in frontier.disk_points)
        text += f" With the disk the least is {format_bytes(least)}."
    if frontier.chosen is not None:
        ratio = frontier.chosen.total_seconds / fastest
        text += f" The chosen plan peaks at {format_bytes(frontier.chosen.peak_bytes)}"
        text += f" and takes {ratio:.3f} times the time"
        text += f", under a budget of {format_bytes(budget_bytes)}." if budget_bytes else "."
    return text
