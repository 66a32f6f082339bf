"""What a planner decides, what the judge finds, and the frontier of time against memory."""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field

from thetaone.errors import InputError
from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_bytes, format_seconds
from thetaone.records.rematerialization._chain import CheckedRecord

Tier = Literal["ram", "disk"]
# what decides the bytes of a step, beside the blocks themselves
CONDITIONS = ("input", "input gradient", "extra tensors", "training", "trainable", "autocast")


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


class DiskCost(CheckedRecord):
    """What a transfer to and from disk costs, synchronously.

    Attributes:
        write_bytes_per_second: Sustained writing [bytes/s].
        read_bytes_per_second: Sustained reading [bytes/s].
        file_seconds: Fixed time of each file written or read [s].
        quota_bytes: Most bytes on disk at once [bytes]; None is no limit.
    """

    write_bytes_per_second: float
    read_bytes_per_second: float
    file_seconds: float = 0.0
    quota_bytes: int | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Reject speeds that no disk has."""
        for field in ("write_bytes_per_second", "read_bytes_per_second"):
            if not getattr(self, field) > 0:
                raise InputError(f"disk: {field}={getattr(self, field)}: need more than 0")
        if not (math.isfinite(self.file_seconds) and self.file_seconds >= 0):
            raise InputError(
                f"disk: file_seconds={self.file_seconds}: need a finite time, 0 or more"
            )
        if self.quota_bytes is not None and self.quota_bytes < 0:
            raise InputError(f"disk: quota_bytes={self.quota_bytes}: need 0 bytes or more")

    def write_seconds(self, size: int) -> float:
        """Time to write one activation of ``size`` bytes [s]."""
        return self.file_seconds + size / self.write_bytes_per_second

    def read_seconds(self, size: int) -> float:
        """Time to read one activation of ``size`` bytes [s]."""
        return self.file_seconds + size / self.read_bytes_per_second


class Schedule(CheckedRecord):
    """A persistent schedule: nested regions, each recomputed once when the backward reaches it.

    Regions are laminar (any two are nested or disjoint) and listed outermost first, left to right.
    A stage inside k regions runs k + 1 times; the last of these writes its tape. A stage outside
    all regions writes its tape at once.

    Attributes:
        length: Stages of the chain [count].
        regions: The nested regions; none is store-all.
        total_seconds: One step: forwards, backwards, loads and disk transfers [s].
        peak_bytes: Most bytes alive at once beyond the chain's own input [bytes].
        forwards: Stage executions in one step, the first sweep included [count].
        loads: Kept activations read to start a recomputation [count].
        disk_writes: Activations written to disk [count].
        disk_reads: Activations read from disk [count].
        disk_bytes: Most bytes on disk at once [bytes].
        policy: How it was made, and the class within which it is optimal.
        budget_bytes: What it was asked to fit [bytes]; None for a fixed policy.
        chain: Fingerprint of the chain it belongs to.
        disk: What transfers were taken to cost; None when it was planned for memory alone.
        parameters: Parameters of its blocks, e.g. ``12,345 float32``; empty if the chain was
            written by hand.
        moving: Names of large buffers that the blocks themselves change.
        conditions: Of the step that was measured, by the names in ``CONDITIONS``; empty likewise.
    """

    version: ClassVar[int] = 2
    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_schedule"

    length: int
    regions: tuple[Region, ...] = ()
    total_seconds: float
    peak_bytes: int
    forwards: int
    loads: int
    disk_writes: int = 0
    disk_reads: int = 0
    disk_bytes: int = 0
    policy: str
    budget_bytes: int | None = None
    chain: str = ""
    disk: DiskCost | None = None
    parameters: str = ""
    moving: tuple[str, ...] = ()
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
        if self.disk_writes:
            rows.append(["disk", f"{self.disk_writes} written, {self.disk_reads} read, "
                                 f"at most {format_bytes(self.disk_bytes)}"])  # fmt: skip
        title = f"{self.policy}, {self.length} stages"
        return text_table(["schedule", ""], rows, title=title) + "\n" + self.drawing()

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


class Timeline(Record):
    """Live bytes through one step, one entry an operation, in the order of execution.

    Attributes:
        operations: ``forward`` (no tape), ``tape`` (forward that writes its tape), ``backward``,
            ``load``, ``write``, ``read``.
        stages: The stage it acts on; for loads and transfers, the stage whose input moves.
        starts: When it begins, from the start of the step [s].
        seconds: How long it lasts [s].
        live_bytes: Most bytes alive while it lasts, beyond the chain's own input [bytes].
    """

    operations: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()
    starts: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    live_bytes: tuple[int, ...] = ()


class Cost(Record):
    """What the judge finds when it replays a schedule on a chain.

    Attributes:
        total_seconds: One step [s].
        peak_bytes: Most bytes alive at once beyond the chain's own input [bytes].
        forwards: Stage executions, the first sweep included [count].
        loads: Kept activations read to start a recomputation [count].
        disk_writes: Activations written to disk [count].
        disk_reads: Activations read from disk [count].
        disk_bytes: Most bytes on disk at once [bytes].
        peak_stage: Name of the stage at which the peak is reached.
        timeline: Every operation with its live bytes.
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_cost"

    total_seconds: float
    peak_bytes: int
    forwards: int
    loads: int
    disk_writes: int = 0
    disk_reads: int = 0
    disk_bytes: int = 0
    peak_stage: str = ""
    timeline: Timeline = Timeline()

    def __str__(self) -> str:
        return (
            f"{format_seconds(self.total_seconds)} a step, peak {format_bytes(self.peak_bytes)} "
            f"at {self.peak_stage!r}, {self.forwards} forwards, {self.loads} loads"
        )


class FrontierPoint(Record):
    """One schedule on the plane of time against memory.

    Attributes:
        label: ``optimal`` or the name of a fixed policy.
        total_seconds: One step [s].
        peak_bytes: Peak of the chain [bytes].
        forwards: Stage executions in one step [count].
        loads: Kept activations read [count].
    """

    label: str
    total_seconds: float
    peak_bytes: int
    forwards: int
    loads: int


class Frontier(Record):
    """Time against memory, from store-all down to the floor, with fixed policies beside it.

    Attributes:
        points: The optimal schedules, by rising bytes and falling seconds.
        policies: Fixed policies, judged by the same replay.
        disk_points: Optimal schedules that have something on disk; empty without one.
        store_all_bytes: Peak when nothing is recomputed [bytes].
        floor_bytes: Least peak of any schedule of the class [bytes].
        chosen: The schedule that was picked, if any.
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_frontier"

    points: tuple[FrontierPoint, ...]
    policies: tuple[FrontierPoint, ...] = ()
    disk_points: tuple[FrontierPoint, ...] = ()
    store_all_bytes: int
    floor_bytes: int
    chosen: FrontierPoint | None = None

    def __str__(self) -> str:
        fastest = min(point.total_seconds for point in self.points)
        rows = [
            [
                point.label,
                format_bytes(point.peak_bytes),
                f"{point.peak_bytes / self.store_all_bytes:.1%}",
                format_seconds(point.total_seconds),
                f"{point.total_seconds / fastest:.3f}",
                str(point.forwards),
            ]
            for point in (*self.points, *self.disk_points, *self.policies)
        ]
        columns = ["schedule", "peak", "of store-all", "seconds", "ratio", "forwards"]
        return text_table(columns, rows)


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
