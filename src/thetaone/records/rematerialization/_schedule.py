"""What a planner decides: which stages are recomputed, from where."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from thetaone.errors import InputError
from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_bytes, format_seconds
from thetaone.records.rematerialization._disk_cost import DiskCost
from thetaone.records.rematerialization._step_cost import StepCost

Tier = Literal["ram", "disk"]
# what decides the bytes of a step, beside the blocks themselves
CONDITIONS = (
    "input", "input gradient", "extra tensors", "extra values", "training", "trainable", "autocast",
)  # fmt: skip


class Region(Record):
    """Stages ``start … stop-1`` run without a tape, to be run again from their kept input.

    Attributes:
        start: First stage; its input is what is kept.
        stop: One past the last stage.
        tier: Where the kept input waits for the backward.
    """

    start: int
    stop: int
    tier: Tier = "ram"


class Schedule(StepCost):
    """A persistent schedule: nested regions, each recomputed once when the backward reaches it.

    Regions are laminar (any two are nested or disjoint) and listed outermost first, left to right.
    A stage inside k regions runs k + 1 times; the last of these writes its tape. A stage outside
    all regions writes its tape at once.

    Attributes:
        length: Stages of the chain [count].
        regions: The nested regions; none is store-all.
        policy: How it was made, and the class within which it is optimal.
        budget_bytes: What it was asked to fit [bytes]; None for a fixed policy.
        bound_seconds: No schedule of the class within the budget takes less [s]; None if unknown.
        chain: Fingerprint of the chain it belongs to.
        disk: What transfers were taken to cost; None when it was planned for memory alone.
        parameters: Parameters of its blocks, e.g. ``12,345 float32``; empty if the chain was
            written by hand.
        moving: Names of large buffers that the blocks themselves change.
        stages: Names of the blocks in the order of their calls; empty if the chain was written by
            hand.
        tapes: What each of these was measured to keep for its backward [bytes]; empty likewise.
        links: How each block's call follows from the one before; see ``Chain``.
        conditions: Of the step that was measured, by the names in ``CONDITIONS``; empty likewise.
    """

    version: ClassVar[int] = 2
    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_schedule"

    length: int
    regions: tuple[Region, ...] = ()
    policy: str
    budget_bytes: int | None = None
    bound_seconds: float | None = None
    chain: str = ""
    disk: DiskCost | None = None
    parameters: str = ""
    moving: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    tapes: tuple[int, ...] = ()
    links: tuple[str, ...] = ()
    conditions: dict[str, str] = Field(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Reject regions that overlap, repeat, or leave the chain."""
        require_laminar(self.length, self.regions)

    @property
    def executions(self) -> tuple[int, ...]:
        """How often each stage runs forward in one step [count]."""
        counts = [1] * self.length
        for region in self.regions:
            for stage in range(region.start, region.stop):
                counts[stage] += 1
        return tuple(counts)

    @property
    def replays(self) -> int:
        """Forwards in the backward pass, apart from the one that writes each tape [count]."""
        return sum(max(0, count - 2) for count in self.executions)

    def __str__(self) -> str:
        recomputed = self.forwards - self.length
        rows = [
            ["seconds a step", format_seconds(self.total_seconds)],
            ["peak", format_bytes(self.peak_bytes)],
            ["forwards", f"{self.forwards} ({recomputed} recomputed)"],
            ["loads", str(self.loads)],
        ]
        if self.budget_bytes is not None:
            rows.insert(1, ["budget", format_bytes(self.budget_bytes)])
        if self.bound_seconds is not None:
            rows.insert(1, ["above the least possible", self._above_bound(self.bound_seconds)])
        if self.disk_writes:
            rows.append(["disk", f"{self.disk_writes} written, {self.disk_reads} read, "
                                 f"at most {format_bytes(self.disk_bytes)}"])  # fmt: skip
        title = f"{self.policy}, {self.length} stages"
        table = text_table(["schedule", ""], rows, title=title)
        regions = ", and ┌ where a region begins whose input is kept (▼ on disk)"
        legend = f"executions of each stage{regions if self.regions else ''}:"
        return f"{table}\n{legend}\n{self.drawing()}"

    def _above_bound(self, bound: float) -> str:
        """How far the best schedule may lie below this one."""
        above = self.total_seconds / bound - 1
        return f"at most {above:.2%}" if above > 1e-9 else "nothing: it is optimal"

    def drawing(self, width: int = 100) -> str:
        """The regions as lines of text, one line a depth of nesting, one column a stage.

        ``─`` is a stage that runs without a tape there, ``┌`` the first stage of a region, whose
        input is kept (``▼`` on disk). The last line counts the executions of each stage.
        """
        if self.length > width:
            return f"({self.length} stages: too many to draw; the regions are in .regions)"
        lines: list[list[str]] = []
        open_until: list[int] = []
        for region in self.regions:
            while open_until and open_until[-1] <= region.start:
                open_until.pop()
            depth = len(open_until)
            open_until.append(region.stop)
            if depth == len(lines):
                lines.append([" "] * self.length)
            line = lines[depth]
            line[region.start : region.stop] = "─" * (region.stop - region.start)
            line[region.start] = "┌" if region.tier == "ram" else "▼"
        counts = "".join(str(n) if n < 10 else "+" for n in self.executions)
        return "\n".join(" " + "".join(line).rstrip() for line in [*lines, list(counts)])


def require_laminar(length: int, regions: tuple[Region, ...]) -> None:
    """Reject regions that are not nested or disjoint, outermost first, inside the chain.

    Raises:
        InputError: The first region that breaks the rule is named.
    """
    enclosing: list[tuple[int, int]] = []
    previous = (-1, 0)
    for region in regions:
        start, stop = region.start, region.stop
        where = f"region {start}…{stop} of a chain of {length} stages"
        if not 0 <= start < stop <= length:
            raise InputError(f"{where}: need 0 <= start < stop <= {length}")
        if (start, -stop) <= previous:
            raise InputError(f"{where}: regions must be listed outermost first, none twice")
        previous = (start, -stop)
        while enclosing and enclosing[-1][1] <= start:
            enclosing.pop()
        if enclosing and stop > enclosing[-1][1]:
            raise InputError(f"{where}: overlaps {enclosing[-1][0]}…{enclosing[-1][1]}")
        enclosing.append((start, stop))
