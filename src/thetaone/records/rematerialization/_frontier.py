"""The frontier of time against memory."""

from typing import ClassVar

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_bytes, format_seconds
from thetaone.records.rematerialization._step_cost import StepCost


class FrontierPoint(StepCost):
    """One schedule on the plane of time against memory.

    Attributes:
        label: ``optimal`` or the name of a fixed policy.
    """

    label: str


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
