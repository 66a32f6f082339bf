"""Residual connections of a program: features to which something computed from them is added."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from thetaone.parametrization._names import block
from thetaone.parametrization.reading.paths._factors import backward_factor
from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.paths._stacks import Term, number_on, stacked_terms
from thetaone.parametrization.reading.program import (
    ACTIVATION,
    DATA,
    INPUT,
    MOVES,
    Operation,
    Value,
    scalar,
)

_ADDS = ("add", "sub")
_TINY = 1e-9  # what rounding leaves of a stream that is taken off again
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
        weight: What else both are multiplied with, so that the stream does not go on as it is.
    """

    total: Operation
    stream: Value
    branch: Value
    scale: float
    added: tuple[str, ...] = ()
    weight: Value | None = None


class Residuals:
    """Finds the residual connections of one program."""

    def __init__(self, linearity: Linearity) -> None:
        self.linearity, self.program = linearity, linearity.program

    def all(self) -> list[Residual]:
        """The residual connections, in order."""
        residuals: list[Residual] = []
        for operation in self.linearity.live():
            if self._is_last(operation):
                residuals += [one for one in self._of_sum(operation) if self._ends_stream(one)]
        return residuals

    def around(self, residual: Residual, residuals: Sequence[Residual]) -> list[Residual]:
        """The residual connections in whose branches one lies."""
        return [other for other in residuals if self._inside(residual, other)]

    def feeds_itself(self, residual: Residual, values: Iterable[Value]) -> bool:
        """Whether some of a branch's features reach its total past more than sums and moves.

        Args:
            residual: With that branch.
            values: Its features.
        """
        total, front = residual.total.output, list(values)
        seen = set(front)
        while front:
            for user in self.linearity.users(front.pop()):
                if user is residual.total or not self.program.depends(total, user.output):
                    continue
                if user.output in seen or self._continues(user.output, residual.stream):
                    continue
                if not _passes_on(user):
                    return True
                seen.add(user.output)
                front.append(user.output)
        return False

    def inside(self, residual: Residual, residuals: Sequence[Residual]) -> list[str]:
        """The parameters between stream and branch.

        Those used on the way, and what blocks on the way compute from something else, such as keys
        from an encoder's output; not what the encoder or another stream computed.
        """
        depends, closure = self.program.depends, self.program.closure
        bits = closure(residual.branch) & ~closure(residual.stream)
        for value in {v for other in residuals for v in (other.stream, other.total.output)}:
            source = value.source if depends(residual.branch, value) else None
            if source and self._is_other_stream(source, residual.stream):
                bits &= ~closure(value)
        used = [use for use in self.linearity.uses.all if bits >> use.operation.index & 1]
        on_way = {u.parameter for u in used if self._takes(u.operation, residual.stream)}
        blocks = {block(name) for name in on_way}
        names = [u.parameter for u in used if u.parameter in on_way or block(u.parameter) in blocks]
        return list(dict.fromkeys((*residual.added, *names))) if names else []

    def _is_last(self, operation: Operation) -> bool:
        """Whether a sum is not itself, times a number or not, a term of a longer one."""
        if operation.name not in _ADDS and not stacked_terms(operation):
            return False
        users = self.linearity.users(operation.output)
        while len(users) == 1 and number_on(users[0]) is not None:
            users = self.linearity.users(users[0].output)
        return not (len(users) == 1 and _adds_features(users[0]))

    def _of_sum(self, operation: Operation) -> Iterator[Residual]:
        every = list(self._terms(operation, 1.0))
        weights = [self.linearity.uses.weights.get(term.value, {}) for term in every]
        added = tuple(dict.fromkeys(name for held in weights for name in held))
        closed = self._merged(t for t in every if t.value.kind in (ACTIVATION, INPUT))
        terms = self._opened(closed)
        for stream in closed:
            branches = [t for t in terms.values() if self._is_branch(t.value, stream)]
            later = [value for value in closed if self._continues(value, stream)]
            for term in branches:
                last = next((h for h in later if self._computed_from(term.value, h)), stream)
                scale = abs(term.factor)
                yield Residual(operation, last, term.value, scale, added, term.weight)
            if branches:
                return

    def _opened(self, terms: dict[Value, Term]) -> dict[Value, Term]:
        """The terms with those sums taken apart that hold another term.

        Such as ``h = x + f(x)`` in ``(x + h + g(h)) / 2``.
        """
        every: list[Term] = []
        for origin, term in terms.items():
            inner = origin.source
            parts = list(self._terms(inner, term.factor)) if inner and _adds_features(inner) else []
            if terms.keys() & {backward_factor(part.value)[1] for part in parts}:
                every += [part for part in parts if part.value.kind in (ACTIVATION, INPUT)]
            else:
                every.append(term)
        return self._merged(every) if len(every) > len(terms) else terms

    def _is_branch(self, value: Value, stream: Value) -> bool:
        """Whether features are computed from a stream, and are not the stream further on."""
        return self._computed_from(value, stream) and not self._continues(value, stream)

    def _continues(self, value: Value, stream: Value) -> bool:
        source = value.source
        while source is not None and _adds_features(source):
            values = [backward_factor(term.value)[1] for term in self._terms(source, 1.0)]
            if stream in values:
                return True
            later = [v for v in values if v.source and _adds_features(v.source)]
            source = next((v.source for v in later if self.program.depends(v, stream)), None)
        return False

    def _merged(self, terms: Iterable[Term]) -> dict[Value, Term]:
        """The terms by what they are multiples of; of the same features, their sum."""
        merged: dict[Value, Term] = {}
        for term in terms:
            number, origin = backward_factor(term.value, self.linearity.counted)
            before = merged.get(origin, Term(term.value, 0.0, term.weight))
            merged[origin] = replace(before, factor=before.factor + number * term.factor)
        return {origin: term for origin, term in merged.items() if abs(term.factor) > _TINY}

    def _computed_from(self, value: Value, stream: Value) -> bool:
        return backward_factor(value)[1] is not stream and self.program.depends(value, stream)

    def _terms(self, operation: Operation, factor: float) -> Iterator[Term]:
        """The terms of a sum, and of sums that are terms, times numbers, and nothing else."""
        plain = (Term(value, _sign(operation, value)) for value in operation.inputs)
        terms = stacked_terms(operation) or tuple(plain)
        for term in terms:
            number, inner = self._inner_sum(term) or (1.0, None)
            parts = [] if inner is None else list(self._terms(inner, factor * term.factor * number))
            if not parts or self._is_whole(operation, parts, [t for t in terms if t is not term]):
                yield replace(term, factor=factor * term.factor)
            else:
                yield from parts

    def _is_whole(self, total: Operation, parts: Sequence[Term], rest: Sequence[Term]) -> bool:
        """Whether a sum among some terms is one branch of theirs, with a stream of its own."""
        streams = [backward_factor(term.value)[1] for term in rest]
        values = [part.value for part in parts if part.value.kind in (ACTIVATION, INPUT)]
        of_one = any(all(self._is_branch(v, stream) for v in values) for stream in streams)
        one = Residual(total, total.output, total.output, 1.0)
        return of_one and self.feeds_itself(one, values)

    def _inner_sum(self, term: Term) -> tuple[float, Operation] | None:
        """The sum that a term is a multiple of, and the number; ``None`` where it is none."""
        number, value = 1.0, term.value
        while term.weight is None and value.source and len(self.linearity.users(value)) == 1:
            if _adds_features(value.source):
                return number, value.source
            step = number_on(value.source)
            if step is None:
                return None
            number, value = number * step[0], step[1]
        return None

    def _ends_stream(self, one: Residual) -> bool:
        """Whether all that is computed from the stream goes through the total.

        Not so for a bias of attention logits that every layer adds to its own.
        """
        total, stream = one.total.output, one.stream
        start = 0 if stream.source is None else stream.source.index + 1
        reached, direct = {stream}, self.linearity.users(stream)
        once = not any(u is not one.total and _adds_features(u) for u in self._past_moves(stream))
        for operation in self.program.following(start):
            if not self.linearity.is_live(operation) or reached.isdisjoint(operation.inputs):
                continue
            if self.program.depends(operation.output, total):
                continue
            uses = [u for out in operation.outputs for u in self.linearity.users(out)]
            if once and one.total not in uses and self._is_other_stream(operation, stream):
                continue
            reached.update(operation.outputs)
            rest = (u for u in uses if u is not one.total and u.name not in _CHOICES)
            if any(self.program.depends(u.output, total) for u in rest):
                return False
        direct = [u for u in direct if u is not one.total and u.name not in _CHOICES]
        return not any(self._bypasses(u, one) for u in direct)

    def _past_moves(self, value: Value) -> Iterator[Operation]:
        """What takes a value, as it is or in another shape or type."""
        for user in self.linearity.users(value):
            if user.name in MOVES:
                yield from (u for out in user.outputs for u in self._past_moves(out))
            else:
                yield user

    def _is_other_stream(self, operation: Operation, stream: Value) -> bool:
        """Whether a sum adds what comes from a stream to features that do not.

        As the second stream of a reversible block, which the next one takes as it is.
        """
        if not _adds_features(operation):
            return False
        terms = [term.value for term in self._terms(operation, 1.0)]
        origins = [backward_factor(v)[1] for v in terms if v.kind in (ACTIVATION, INPUT)]
        apart = [v for v in origins if not self.program.depends(v, stream)]
        return bool(apart) and stream not in origins

    def _takes(self, operation: Operation, stream: Value) -> bool:
        return self.program.depends(operation.output, stream)

    def _bypasses(self, user: Operation, one: Residual) -> bool:
        return any(self.program.depends(value, one.total.output) for value in user.inputs)

    def _inside(self, one: Residual, other: Residual) -> bool:
        if one.total is other.total or self.program.depends(other.stream, one.branch):
            return False
        depends = self.program.depends
        return depends(other.branch, one.branch) and depends(one.stream, other.stream)


def _adds_features(operation: Operation) -> bool:
    """Whether an operation adds features as they are, or times numbers."""
    if operation.name in _ADDS:
        return any(value.kind == ACTIVATION for value in operation.inputs)
    terms = stacked_terms(operation)
    return bool(terms) and all(term.weight is None for term in terms)


def _passes_on(operation: Operation) -> bool:
    """Whether an operation only moves features, adds them or multiplies them with data."""
    if operation.name in ("mul", "div"):
        return all(v.kind in (ACTIVATION, INPUT, DATA) for v in operation.inputs) and (
            len([v for v in operation.inputs if v.kind != DATA]) == 1
        )
    return operation.name in (*MOVES, "stack", "cat") or _adds_features(operation)


def _sign(operation: Operation, value: Value) -> float:
    negative = operation.name == "sub" and operation.arguments["other"] is value
    return -scalar(operation, value) if negative else scalar(operation, value)
