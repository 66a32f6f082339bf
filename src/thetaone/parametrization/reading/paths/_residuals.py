"""Residual connections of a program: features to which something computed from them is added."""

from collections.abc import Iterator
from dataclasses import dataclass

from thetaone.parametrization.reading.paths._factors import backward_factor
from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.paths._pairs import stacked_terms
from thetaone.parametrization.reading.program import (
    ACTIVATION,
    INPUT,
    Operation,
    Value,
    scalar,
)

_CHOICES = ("where", "write")  # of the stream, or what was added to it, entry by entry


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """``total = stream + branch``, in whatever way it is written.

    Attributes:
        total: The operation that adds, the last one of several.
        stream: What the branch was computed from.
        branch: What is added.
        scale: The number that the branch is multiplied with at its end.
        added: Parameters that the same sum adds as they are, such as a bias.
    """

    total: Operation
    stream: Value
    branch: Value
    scale: float
    added: tuple[str, ...] = ()


class Residuals:
    """Finds the residual connections of one program."""

    def __init__(self, linearity: Linearity) -> None:
        self.linearity, self.program = linearity, linearity.program

    def all(self) -> list[Residual]:
        """The residual connections that lie in no other one's branch, in order."""
        residuals: list[Residual] = []
        for operation in self.linearity.live():
            if self._is_last(operation):
                residuals += [one for one in self._of_sum(operation) if self._ends_stream(one)]

        def nested(residual: Residual) -> bool:
            return any(self._inside(residual, other) for other in residuals)

        return [residual for residual in residuals if not nested(residual)]

    def inside(self, residual: Residual) -> list[str]:
        """The parameters that a branch depends on and its stream does not."""
        closures = (self.program.closure(v) for v in (residual.branch, residual.stream))
        branch, stream = closures
        bits = branch & ~stream
        used = (use for use in self.linearity.uses.all if bits >> use.operation.index & 1)
        names = list(dict.fromkeys(use.parameter for use in used))
        return list(dict.fromkeys((*residual.added, *names))) if names else []

    def _is_last(self, operation: Operation) -> bool:
        """Whether a sum is not itself a term of a longer one."""
        if operation.name not in ("add", "sub") and not stacked_terms(operation):
            return False
        users = self.linearity.users(operation.output)
        return not (len(users) == 1 and users[0].name in ("add", "sub") and _adds_two(users[0]))

    def _of_sum(self, operation: Operation) -> Iterator[Residual]:
        every = list(self._terms(operation, 1.0))
        terms = [term for term in every if term[0].kind in (ACTIVATION, INPUT)]
        weights = [self.linearity.uses.weights.get(value, {}) for value, _ in every]
        added = tuple(dict.fromkeys(name for held in weights for name in held))
        origins = [backward_factor(value, self.linearity.counted) for value, _ in terms]
        for i, (_, stream) in enumerate(origins):
            rest = [(j, terms[j]) for j in range(len(terms)) if j != i]
            depend = [(j, t) for j, t in rest if self._computed_from(t[0], stream)]
            if depend:
                for j, (branch, factor) in depend:
                    yield Residual(operation, stream, branch, factor * origins[j][0], added)
                return

    def _computed_from(self, value: Value, stream: Value) -> bool:
        return value is not stream and self.program.depends(value, stream)

    def _terms(self, operation: Operation, factor: float) -> Iterator[tuple[Value, float]]:
        """The terms of a sum, and of sums that are terms and nothing else."""
        values = stacked_terms(operation) or operation.inputs
        for value in values:
            inner, number = value.source, factor * scalar(operation, value)
            nested = inner is not None and inner.name in ("add", "sub") and _adds_two(inner)
            if nested and inner is not None and len(self.linearity.users(value)) == 1:
                yield from self._terms(inner, number)
            else:
                yield value, number

    def _ends_stream(self, one: Residual) -> bool:
        """Whether all that is computed from the stream goes through the total.

        Not so for a bias of attention logits that every layer adds to its own.
        """
        total, stream = one.total.output, one.stream
        start = 0 if stream.source is None else stream.source.index + 1
        for operation in self.program.following(start):
            if not self.linearity.is_live(operation) or not self._takes(operation, stream):
                continue
            if self.program.depends(operation.output, total):
                continue
            uses = [u for out in operation.outputs for u in self.linearity.users(out)]
            rest = (u for u in uses if u is not one.total and u.name not in _CHOICES)
            if any(self.program.depends(u.output, total) for u in rest):
                return False
        direct = [
            u for u in self.linearity.users(stream) if u is not one.total and u.name not in _CHOICES
        ]
        return not any(self._bypasses(u, one) for u in direct)

    def _takes(self, operation: Operation, stream: Value) -> bool:
        return self.program.depends(operation.output, stream)

    def _bypasses(self, user: Operation, one: Residual) -> bool:
        return any(self.program.depends(value, one.total.output) for value in user.inputs)

    def _inside(self, one: Residual, other: Residual) -> bool:
        if one.total is other.total or self.program.depends(other.stream, one.branch):
            return False
        depends = self.program.depends
        return depends(other.branch, one.branch) and depends(one.stream, other.stream)


def _adds_two(operation: Operation) -> bool:
    kinds = [value.kind for value in operation.inputs]
    return len(kinds) >= 1 and ACTIVATION in kinds
