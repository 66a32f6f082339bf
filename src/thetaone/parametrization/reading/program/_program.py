"""A program: the operations of one forward pass, with who uses whose results."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

GRADIENT = "gradient of "  # before the name of what autograd does
PARAMETER, DATA, INPUT, ACTIVATION = "parameter", "data", "input", "activation"

CONTRACTIONS = frozenset(
    "mm bmm addmm baddbmm mv addmv dot vdot convolution _grouped_mm linear _trilinear".split()  # noqa: SIM905
)


@dataclass(slots=True, eq=False)
class Value:
    """A tensor of the pass, at one moment: a write in place makes another value.

    Attributes:
        shape: Its shape.
        kind: ``activation`` when it depends on an input; ``parameter`` when on parameters alone;
            ``data`` for buffers, constants and what is computed from them; ``input`` for a leaf.
        name: Qualified name, of a leaf that is a parameter.
        source: The operation that made it; ``None`` for a leaf.
        constant: Its value, where small and known without a forward pass.
        counts: Whether it holds whole numbers or truths, such as the places of chosen rows.
        users: The operations that take it, in order.
    """

    shape: tuple[int, ...]
    kind: str
    name: str = ""
    source: "Operation | None" = field(default=None, repr=False)
    constant: Tensor | None = None
    counts: bool = False
    users: "list[Operation]" = field(default_factory=list["Operation"], repr=False)

    @property
    def number(self) -> float | None:
        """The one number that all its entries are, when it is known."""
        if self.constant is None or self.constant.numel() == 0 or self.constant.is_complex():
            return None
        first = self.constant.flatten()[0]
        if self.constant.numel() > 1 and not bool((self.constant == first).all()):
            return None
        return float(first)


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of the pass.

    Attributes:
        index: Its place in the order of execution.
        name: Of the aten operation, without ``_`` for a write in place; after ``GRADIENT`` where
            a gradient is taken inside the pass, which follows from what was done forward.
        arguments: By the schema's names; tensors are values.
        inputs: The values among its arguments.
        outputs: What it returns or writes.
        where: Qualified name of the module in whose forward pass it ran.
        call: Does the same to other tensors, given its arguments with tensors for values.
    """

    index: int
    name: str
    arguments: dict[str, Any]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    where: str
    call: Callable[..., Any]

    @property
    def output(self) -> Value:
        """Its first output."""
        return self.outputs[0]

    @property
    def is_gradient(self) -> bool:
        """Whether autograd ran it."""
        return self.name.startswith(GRADIENT)


@dataclass(eq=False)
class Program:
    """The operations of one pass, in order.

    Attributes:
        operations: In the order of execution.
        outputs: The tensors that the pass returned.
        parameters: Leaves by qualified name, those used at all.
        results: Of each module, the first output of its last call.
    """

    operations: list[Operation]
    outputs: tuple[Value, ...]
    parameters: dict[str, Value]
    results: dict[str, Value]

    @cached_property
    def _closures(self) -> list[int]:
        """Of each operation those that it depends on, as bits."""
        closures: list[int] = []
        for operation in self.operations:
            bits = 1 << operation.index
            for value in operation.inputs:
                if value.source is not None:
                    bits |= closures[value.source.index]
            closures.append(bits)
        return closures

    def closure(self, value: Value) -> int:
        """The operations that a value depends on, as bits."""
        return 0 if value.source is None else self._closures[value.source.index]

    def depends(self, value: Value, on: Value) -> bool:
        """Whether a value was computed from another one, or is it."""
        if value is on:
            return True
        if on.source is None:
            return any(self.closure(value) >> user.index & 1 for user in on.users)
        return bool(self.closure(value) >> on.source.index & 1)

    def is_output(self, value: Value) -> bool:
        """Whether the pass returned it."""
        return any(value is output for output in self.outputs)

    def following(self, start: int) -> Iterator[Operation]:
        """The operations from a place on."""
        return iter(self.operations[start:])


def kinds_of(inputs: tuple[Value, ...]) -> set[str]:
    """The kinds of some values."""
    return {value.kind for value in inputs}


def kind_of(inputs: tuple[Value, ...], *, random: bool) -> str:
    """The kind of what is computed from some values."""
    kinds = kinds_of(inputs)
    if random or kinds & {ACTIVATION, INPUT}:
        return ACTIVATION
    return PARAMETER if PARAMETER in kinds else DATA
