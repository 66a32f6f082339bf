"""Where a factor on features can be moved to: the parameters in which they are linear.

``y = W x + b`` times f is the same network as f W and f b in its place, if y goes nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from thetaone.parametrization.reading.paths._linear import Linearity, Path
from thetaone.parametrization.reading.paths._rows import (
    feature_numbers,
    leaf_rows,
    row_set,
    spans_of,
)
from thetaone.parametrization.reading.program import MOVES, Operation, Value
from thetaone.records import MATRIX, FoldTarget

Leak = tuple[Value, Operation]
Rows = frozenset[int] | None  # of a maker's output features; all where None


@dataclass(frozen=True, slots=True)
class Fold:
    """What to multiply so that some features are multiplied.

    Attributes:
        targets: The parameters, whole or some of their rows.
        taken: Indices of the operations in which they make these features.
        elsewhere: Of the operations in which the same rows make others, which are multiplied too.
    """

    targets: tuple[FoldTarget, ...]
    taken: frozenset[int]
    elsewhere: frozenset[int] = frozenset()


class Folding:
    """Finds folds in one program."""

    def __init__(self, linearity: Linearity) -> None:
        self.linearity, self.program, self.uses = linearity, linearity.program, linearity.uses

    def fold(self, values: tuple[Value, ...], *consumers: Operation) -> Fold | None:
        """What to multiply so that ``consumers`` see ``values`` multiplied; ``None`` for nothing.

        Args:
            values: Features; of several, all.
            consumers: The operations that are to see them multiplied, and no others.
        """
        path = self.linearity.joint_path(values)
        if path is None:
            return None
        if any(use.how.startswith("normalized") for name in path.parameters
               for use in self.uses.all if use.parameter == name):  # fmt: skip
            return self._gains(path)
        leaks = list(self._leaks(path, consumers))
        rows: Rows = None
        if leaks:
            rows = self._rows(path, values[0], leaks) if len(values) == 1 else None
            if rows is None:
                return None
        return self._with_parameters(path, rows)

    def _gains(self, path: Path) -> Fold | None:
        """Of a normalized weight the norms are multiplied, and what is added."""
        normalized = {gain.of for gain in self.uses.gains.values()}
        rest = [name for name in path.parameters if name not in normalized]
        used = (use for use in self.uses.all if use.parameter in path.parameters)
        if any(use.operation.index not in path.taken for use in used):
            return None
        return Fold(tuple(FoldTarget(parameter=name) for name in rest), frozenset(path.taken))

    def _leaks(self, path: Path, consumers: tuple[Operation, ...]) -> Iterator[Leak]:
        """Where values on the way go beside the consumers."""
        on_path = {id(v) for v in path.values}
        for value in path.values:
            if self.program.is_output(value):
                yield value, consumers[0]
            for user in self.linearity.users(value):
                if user in consumers:
                    continue
                if not any(id(out) in on_path for out in user.outputs):
                    yield value, user
                elif len(user.outputs) > 1:
                    others = [out for out in user.outputs if id(out) not in on_path]
                    yield from ((value, u) for o in others for u in self.linearity.users(o)[:1])

    def _rows(self, path: Path, value: Value, leaks: list[Leak]) -> Rows:
        """The features of one projection that some features are, if they are nothing else."""
        operations = {op.index: op for op in path.parameters.values()}
        makers = [op for op in operations.values() if self._has_matrix(op)]
        if len(makers) != 1:
            return None
        (maker,) = makers
        rows = row_set(feature_numbers(value, maker))
        on_path = {id(v) for v in path.values}
        for held, user in leaks:
            if rows is None or self.program.is_output(held):
                return None
            for out in user.outputs:
                others = row_set(feature_numbers(out, maker))
                if others is None and user.name not in MOVES:
                    others = row_set(feature_numbers(held, maker))
                if (others is None or others & rows) and id(out) not in on_path:
                    return None
        return rows

    def _has_matrix(self, operation: Operation) -> bool:
        return any(u.kind == MATRIX for u in self.uses.by_operation.get(operation.index, []))

    def _with_parameters(self, path: Path, rows: Rows) -> Fold | None:
        targets: list[FoldTarget] = []
        elsewhere: set[int] = set()
        for name, operation in path.parameters.items():
            used = {u.operation.index for u in self.uses.all if u.parameter == name}
            others = [self.program.operations[i] for i in sorted(used - path.taken)]
            others = [one for one in others if self.linearity.is_live(one)]
            if rows is None and not others:
                targets.append(FoldTarget(parameter=name))
                continue
            leaf = self.program.parameters[name]
            ours = leaf_rows(self.uses, leaf, operation)
            if ours is None:
                return None
            axis, numbers = ours
            if rows is not None and max(rows) >= len(numbers):
                return None
            mine = set(numbers) if rows is None else {numbers[row] for row in rows}
            for other in others:
                theirs = leaf_rows(self.uses, leaf, other)
                if theirs is None or theirs[0] != axis or mine & set(theirs[1]):
                    elsewhere.add(other.index)
            whole = len(mine) == leaf.shape[axis]
            spans = () if whole else spans_of(sorted(mine))
            targets.append(FoldTarget(parameter=name, axis=axis if spans else 0, spans=spans))
        return Fold(tuple(targets), frozenset(path.taken), frozenset(elsewhere))
