"""A training step seen as a chain of stages: what each costs in seconds and in bytes."""

import hashlib
import math
from itertools import groupby, pairwise
from typing import Any, ClassVar

from pydantic import Field, ValidationError

from thetaone.errors import InputError
from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import LARGEST_BYTES, format_bytes, format_seconds


class CheckedRecord(Record):
    """A record whose constructor raises ``InputError`` for a bad field."""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            where = f"{type(self).__name__}: {place}: " if place else ""
            raise InputError(where + message) from error


class Stage(CheckedRecord):
    """One link of a chain: a block of the network, forward and backward.

    Attributes:
        name: Where it is in the model.
        forward_seconds: Time of one forward execution [s], > 0.
        backward_seconds: Time of the backward alone, without any forward [s], >= 0.
        output_bytes: Size of the output, and of its gradient (A of the output) [bytes].
        tape_bytes: What the backward keeps (T), output included, input excluded [bytes].
        forward_scratch_bytes: Live in the forward beyond input and what it leaves (x) [bytes].
        backward_scratch_bytes: Live in the backward beyond tape and both gradients (y) [bytes].
        taping_scratch_bytes: The same as ``forward_scratch_bytes`` while the tape is written; None
            takes ``forward_scratch_bytes``.
        tail_seconds: End of the forward, after the last tensor that its backward needs [s]. A
            recomputed region stops there in its last stage; 0 when it is run to the end.
        seconds_spread: Interquartile range of the measured times over their median; 0 if unknown.
        recomputable: Whether it may run again; else its tape is always kept. So stands a block that
            cannot be recomputed in its chain, or what a model runs between two lists of blocks:
            that takes no forward time if it is measured elsewhere.

    Raises:
        InputError: A size or time is negative or not finite, or the forward takes no time.
    """

    name: str
    forward_seconds: float
    backward_seconds: float
    output_bytes: int
    tape_bytes: int
    forward_scratch_bytes: int = 0
    backward_scratch_bytes: int = 0
    taping_scratch_bytes: int | None = None
    tail_seconds: float = 0.0
    seconds_spread: float = 0.0
    recomputable: bool = True

    def model_post_init(self, context: Any, /) -> None:
        """Reject costs that no execution can have."""
        least = self.forward_seconds > 0 if self.recomputable else self.forward_seconds >= 0
        if not (math.isfinite(self.forward_seconds) and least):
            self._reject("forward_seconds", self.forward_seconds, "a finite time above 0")
        if not (math.isfinite(self.backward_seconds) and self.backward_seconds >= 0):
            self._reject("backward_seconds", self.backward_seconds, "a finite time, 0 or more")
        if not 0 <= self.tail_seconds <= self.forward_seconds:
            self._reject("tail_seconds", self.tail_seconds, "0 … forward_seconds")
        for field in ("tape_bytes", "forward_scratch_bytes", "backward_scratch_bytes"):
            if getattr(self, field) < 0:
                self._reject(field, getattr(self, field), "0 bytes or more")
        if self.output_bytes < 1:
            self._reject("output_bytes", self.output_bytes, "1 byte or more")
        if self.taping_scratch_bytes is not None and self.taping_scratch_bytes < 0:
            self._reject("taping_scratch_bytes", self.taping_scratch_bytes, "0 bytes or more")
        if self.most_bytes > LARGEST_BYTES:
            raise InputError(
                f"stage {self.name!r}: {self.most_bytes} bytes together: need 1 EiB (2^60 bytes) "
                "or less, as any machine has"
            )

    @property
    def most_bytes(self) -> int:
        """No execution of the stage holds more [bytes]."""
        scratch = self.taping_bytes + self.forward_scratch_bytes + self.backward_scratch_bytes
        return self.output_bytes + self.tape_bytes + scratch

    @property
    def taping_bytes(self) -> int:
        """Scratch of the forward that writes the tape [bytes]."""
        extra = self.taping_scratch_bytes
        return self.forward_scratch_bytes if extra is None else extra

    @property
    def costs(self) -> tuple[float, float, float, int, int, int, int, int]:
        """All that a planner sees; stages with equal costs are interchangeable."""
        return (
            self.forward_seconds, self.backward_seconds, self.tail_seconds, self.output_bytes,
            self.tape_bytes, self.forward_scratch_bytes, self.backward_scratch_bytes,
            self.taping_bytes,
        )  # fmt: skip

    def _reject(self, field: str, value: float, limit: str) -> None:
        raise InputError(f"stage {self.name!r}: {field}={value}: need {limit}")


class Chain(CheckedRecord):
    """Stages in the order of the forward; the output of each is the input of the next.

    Attributes:
        input_bytes: Size of the chain's own input (A_0) [bytes]; outside every budget.
        stages: At least one stage.
        input_requires_grad: Whether the backward makes a gradient of the input (A_0 more bytes).
        load_seconds: Time to start one recomputation: to fetch the kept activation, to set up [s].
        separate: Why no region may span two stages: the model's loop does something between them.
            Empty when one may.
        lists: Where the second and further lists of blocks start, as positions of stages, rising;
            no region spans two lists. Empty for one list.
        moving: Names of large buffers that the blocks themselves change.
        links: How each stage's call follows from the one before, where more than one tensor flows
            or arguments differ; empty text where the call is the same, empty altogether where all
            are.
        context: What was profiled, for people: module, shapes, dtype, device, threads.
        signature: Hash of what was profiled; a model of another signature needs another profile.

    Raises:
        InputError: No stage, or a negative size or time.

    Examples:
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=1,
        ...               tape_bytes=16)
        >>> chain = Chain(input_bytes=1, stages=(stage,) * 24)
        >>> chain.length, chain.activation_bytes[:3], chain.tape_bytes
        (24, (1, 1, 1), 384)
    """

    version: ClassVar[int] = 2

    input_bytes: int
    stages: tuple[Stage, ...]
    input_requires_grad: bool = True
    load_seconds: float = 0.0
    separate: str = ""
    lists: tuple[int, ...] = ()
    moving: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    signature: str = ""

    def model_post_init(self, context: Any, /) -> None:
        """Reject an empty chain and negative sizes."""
        if not self.stages:
            raise InputError("chain: stages=(): need at least one stage")
        if self.input_bytes < 0:
            raise InputError(f"chain: input_bytes={self.input_bytes}: need 0 bytes or more")
        together = self.input_bytes + sum(one.most_bytes for one in self.stages)
        if together > LARGEST_BYTES:
            raise InputError(
                f"chain: {together} bytes of input and stages together: need 1 EiB (2^60 bytes) or "
                "less, as any machine has"
            )
        if not (math.isfinite(self.load_seconds) and self.load_seconds >= 0):
            raise InputError(
                f"chain: load_seconds={self.load_seconds}: need a finite time, 0 or more"
            )

        if any(not 0 < a < b for a, b in pairwise((*self.lists, self.length))):
            raise InputError(
                f"chain: lists={self.lists}: need rising positions between 1 and {self.length - 1}"
            )

    @property
    def length(self) -> int:
        """Number of stages [count]."""
        return len(self.stages)

    @property
    def activation_bytes(self) -> tuple[int, ...]:
        """A_0 … A_L: the input and every stage's output [bytes]."""
        return (self.input_bytes, *(stage.output_bytes for stage in self.stages))

    @property
    def gradient_bytes(self) -> tuple[int, ...]:
        """Gradients of A_0 … A_L [bytes]; the first is 0 when the input needs none."""
        first = self.input_bytes if self.input_requires_grad else 0
        return (first, *(stage.output_bytes for stage in self.stages))

    @property
    def tape_bytes(self) -> int:
        """All tapes together [bytes]."""
        return sum(stage.tape_bytes for stage in self.stages)

    @property
    def seconds(self) -> float:
        """One forward and one backward of every stage, nothing recomputed [s]."""
        return sum(stage.forward_seconds + stage.backward_seconds for stage in self.stages)

    @property
    def fingerprint(self) -> str:
        """Hash of every cost that a planner sees: a schedule belongs to one fingerprint."""
        costs = (self.input_bytes, self.input_requires_grad, self.load_seconds, bool(self.separate))
        text = repr((costs, [stage.costs for stage in self.stages]))
        kept = [k for k, stage in enumerate(self.stages) if not stage.recomputable]
        if self.lists or kept:
            text += repr((self.lists, kept))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        rows: list[list[str]] = []
        for _, group in groupby(self.stages, key=lambda stage: stage.costs):
            run = list(group)
            stage, last = run[0], run[-1]
            rows.append([
                stage.name if len(run) == 1 else f"{stage.name} … {last.name}",
                str(len(run)),
                format_seconds(stage.forward_seconds),
                format_seconds(stage.backward_seconds),
                format_bytes(stage.output_bytes),
                format_bytes(stage.tape_bytes),
                format_bytes(stage.forward_scratch_bytes),
                format_bytes(stage.backward_scratch_bytes),
            ])  # fmt: skip
        columns = [
            "stage",
            "count",
            "forward",
            "backward",
            "output",
            "tape",
            "forward scratch",
            "backward scratch",
        ]
        title = (
            f"chain of {self.length} stages: {format_seconds(self.seconds)} a step, "
            f"{format_bytes(self.tape_bytes)} of tapes"
        )
        return text_table(columns, rows, title=title)
