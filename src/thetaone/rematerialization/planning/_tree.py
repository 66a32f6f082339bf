"""The nested form of a schedule: what to run inside what."""

from dataclasses import dataclass, field

from thetaone.records import Schedule, Tier


@dataclass
class Node:
    """A region with its items in forward order.

    Attributes:
        start: First stage.
        stop: One past the last.
        tier: Where the input waits. In memory if it is there anyway: the chain's own input, one
            that a surrounding region keeps, or one in the tape of the stage before.
        items: A stage (it writes its tape when the node runs) or a nested region (it does not).
        spare: Bytes that the plan leaves of its budget.
    """

    start: int
    stop: int
    tier: Tier = "ram"
    items: list["int | Node"] = field(default_factory=list["int | Node"])
    spare: int = 0


def tree(schedule: Schedule) -> Node:
    """The whole chain as one node, regions nested inside.

    Examples:
        >>> from thetaone.records import Region, Schedule
        >>> regions = Region(start=0, stop=2), Region(start=0, stop=1)
        >>> schedule = Schedule(length=3, regions=regions, total_seconds=1.0, peak_bytes=1,
        ...                     forwards=6, loads=2, policy="by hand")
        >>> root = tree(schedule)
        >>> root.items[0].items[0].items, root.items[0].items[1], root.items[1]
        ([0], 1, 2)
    """
    spare = max(0, (schedule.budget_bytes or 0) - schedule.peak_bytes)
    root = Node(0, schedule.length, spare=spare)
    path, ends = [root], [0]  # open nodes, and how far each has been filled
    for region in schedule.regions:
        while path[-1].stop <= region.start:
            _close(path, ends)
        path[-1].items.extend(range(ends[-1], region.start))
        tier = "ram" if _held(path, region.start) else region.tier
        node = Node(region.start, region.stop, tier, spare=spare)
        path[-1].items.append(node)
        ends[-1] = region.stop
        path.append(node)
        ends.append(region.start)
    while path:
        _close(path, ends)
    return root


def _held(path: list[Node], start: int) -> bool:
    """Whether the input of a stage is in memory, whatever a region there asks for."""
    around = path[-1]
    if around.items:
        return isinstance(around.items[-1], int)
    return start == 0 or (around.start == start and around.tier == "ram")


def _close(path: list[Node], ends: list[int]) -> None:
    node = path.pop()
    node.items.extend(range(ends.pop(), node.stop))
