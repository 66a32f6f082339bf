"""The nested form of a schedule: what to run inside what."""

from dataclasses import dataclass, field

from thetaone.records.schedule import Schedule, Tier


@dataclass
class Node:
    """A region with its items in forward order.

    Attributes:
        start: First stage.
        stop: One past the last.
        tier: Where the input waits.
        items: A stage (it writes its tape when the node runs) or a nested region (it does not).
    """

    start: int
    stop: int
    tier: Tier = "ram"
    items: list["int | Node"] = field(default_factory=list["int | Node"])


def tree(schedule: Schedule) -> Node:
    """The whole chain as one node, regions nested inside.

    Examples:
        >>> from thetaone.records.schedule import Region, Schedule
        >>> regions = Region(start=0, stop=2), Region(start=0, stop=1)
        >>> schedule = Schedule(length=3, regions=regions, total_seconds=1.0, peak_bytes=1,
        ...                     forwards=6, loads=2, policy="by hand")
        >>> root = tree(schedule)
        >>> root.items[0].items[0].items, root.items[0].items[1], root.items[1]
        ([0], 1, 2)
    """
    root = Node(0, schedule.length)
    path, ends = [root], [0]  # open nodes, and how far each has been filled
    for region in schedule.regions:
        while path[-1].stop <= region.start:
            _close(path, ends)
        path[-1].items.extend(range(ends[-1], region.start))
        node = Node(region.start, region.stop, region.tier)
        path[-1].items.append(node)
        ends[-1] = region.stop
        path.append(node)
        ends.append(region.start)
    while path:
        _close(path, ends)
    return root


def _close(path: list[Node], ends: list[int]) -> None:
    node = path.pop()
    node.items.extend(range(ends.pop(), node.stop))
