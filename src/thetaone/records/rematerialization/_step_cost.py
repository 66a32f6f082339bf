"""What a step costs, and how it spends its time: the judge's findings."""

from typing import Any, ClassVar

from thetaone.records._base import Record
from thetaone.records._units import format_bytes, format_seconds
from thetaone.records.rematerialization._chain import CheckedRecord


class StepCost(CheckedRecord):
    """What one training step costs under a schedule.

    Attributes:
        total_seconds: One step: forwards, backwards, loads and disk transfers [s].
        peak_bytes: Most bytes alive at once beyond the chain's own input [bytes].
        forwards: Stage executions in one step, the first sweep included [count].
        loads: Kept activations read to start a recomputation [count].
        disk_writes: Activations written to disk [count].
        disk_reads: Activations read from disk [count].
        disk_bytes: Most bytes on disk at once [bytes].
    """

    total_seconds: float
    peak_bytes: int
    forwards: int
    loads: int
    disk_writes: int = 0
    disk_reads: int = 0
    disk_bytes: int = 0

    @property
    def step_cost(self) -> dict[str, Any]:
        """These figures alone, by name."""
        return {name: getattr(self, name) for name in StepCost.model_fields}


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


class Cost(StepCost):
    """What the judge finds when it replays a schedule on a chain.

    Attributes:
        peak_stage: Name of the stage at which the peak is reached.
        timeline: Every operation with its live bytes.

    Examples:
        >>> import thetaone as t1
        >>> block = t1.Stage(
        ...     name="block", forward_seconds=1, backward_seconds=2, output_bytes=1, tape_bytes=4
        ... )
        >>> chain = t1.Chain(input_bytes=1, stages=(block,) * 4)
        >>> cost = t1.simulate(chain, t1.plan(chain, "60%"))
        >>> cost.forwards > 4, cost.peak_bytes
        (True, 9)
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_cost"

    peak_stage: str = ""
    timeline: Timeline = Timeline()

    def __str__(self) -> str:
        return (
            f"{format_seconds(self.total_seconds)} a step, peak {format_bytes(self.peak_bytes)} "
            f"at {self.peak_stage!r}, {self.forwards} forwards, {self.loads} loads"
        )
