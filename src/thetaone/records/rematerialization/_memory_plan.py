"""What training a model takes in memory: its chain, the frontier, a plan, and the rest."""

from typing import ClassVar

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_bytes
from thetaone.records.rematerialization._chain import Chain
from thetaone.records.rematerialization._frontier import Frontier
from thetaone.records.rematerialization._schedule import Schedule
from thetaone.records.rematerialization._step_cost import Cost


class MemoryPlan(Record):
    """A planned training step and all that it keeps in memory.

    Attributes:
        task: Whose model.
        width: Of the model.
        chain: Measured blocks.
        frontier: Time against memory.
        schedule: The chosen schedule; None when no budget was given.
        cost: The judge's replay of it, with its timeline.
        weight_bytes: Parameters and buffers [bytes].
        gradient_bytes: Gradients of the parameters [bytes].
        optimizer_bytes: State of the optimizer [bytes].
        optimizer: Its name; empty if it has none.

    Examples:
        >>> from thetaone.studies import memory_frontier
        >>> memory = memory_frontier("lm", width=32, budget=0.6)
        >>> memory.schedule.peak_bytes <= memory.schedule.budget_bytes
        True
    """

    version: ClassVar[int] = 2
    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_memory_plan"

    task: str
    width: int
    chain: Chain
    frontier: Frontier
    schedule: Schedule | None = None
    cost: Cost | None = None
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    optimizer: str = ""

    def __str__(self) -> str:
        parts = [str(self.chain), str(self.frontier)]
        if self.schedule is not None:
            parts.append(str(self.schedule))
        chain = self.schedule.peak_bytes if self.schedule else self.frontier.store_all_bytes
        model = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes
        rows = [
            ["weights and buffers", format_bytes(self.weight_bytes)],
            ["gradients", format_bytes(self.gradient_bytes)],
            [f"state of {self.optimizer or 'the optimizer'}", format_bytes(self.optimizer_bytes)],
            ["input of the chain", format_bytes(self.chain.input_bytes)],
            ["chain of blocks, " + ("planned" if self.schedule else "store-all"),
             format_bytes(chain)],
            ["sum (loss and readout come on top)",
             format_bytes(model + self.chain.input_bytes + chain)],
        ]  # fmt: skip
        parts.append(text_table(["memory of a training step", ""], rows))
        return "\n\n".join(parts)
