"""Where a factor on features can be moved to: the parameters in which they are linear.

``y = W x + b`` times f is the same network as f W and f b in its place, if y goes nowhere else.
Past a positively homogeneous operation (``relu``) the same holds for f > 0.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from thetaone.parametrization.reading.program._axes import MOVES
from thetaone.parametrization.reading.program._contractions import factors_of, scalar
from thetaone.parametrization.reading.program._parts import Uses
from thetaone.parametrization.reading.program._program import PARAMETER, Operation, Program, Value
from thetaone.parametrization.reading.program._rows import (
    axis_of_rows,
    feature_index,
    row_set,
    spans_of,
)
from thetaone.parametrization.reading.program._uses import NORMS
from thetaone.records import LOOKUP, MATRIX, FoldTarget

_SUMS = (
    "add",
    "sub",
    "cat",
    "stack",
    "index_add",
    "index_put",
    "scatter_add",
    "write",
    "sum",
    "mean",
)
_HOMOGENEOUS = frozenset(
    """relu leaky_relu abs threshold _prelu_kernel amax amin max_pool2d_with_indices
    max_pool2d max_pool1d hardtanh_ rrelu_with_noise""".split()  # noqa: SIM905
)


@dataclass(slots=True, eq=False)
class Path:
    """The way from some features back to the parameters in which they are linear.

    Attributes:
        parameters: In the order met; each with the operation in which it is used.
        values: All values on the way.
        taken: Indices of all operations in which the parameters are used on it.
    """

    parameters: dict[str, Operation] = field(default_factory=dict[str, Operation])
    values: list[Value] = field(default_factory=list[Value])
    taken: set[int] = field(default_factory=set[int])


class Linearity:
    """Finds paths in one program."""

    def __init__(self, program: Program, uses: Uses) -> None:
        self.program, self.uses = program, uses
        live = 0
        for value in program.outputs:
            live |= program.closure(value)
        self._live = live

    def is_live(self, operation: Operation) -> bool:
        """Whether the pass's result depends on an operation."""
        return bool(self._live >> operation.index & 1)

    def live(self) -> Iterator[Operation]:
        """The operations that the pass's result depends on, in order."""
        return (one for one in self.program.operations if self.is_live(one))

    def users(self, value: Value) -> list[Operation]:
        """The operations that take a value and on which the pass's result depends."""
        return [user for user in value.users if self._live >> user.index & 1]

    def path(self, value: Value, *, homogeneous: bool = True) -> Path | None:
        """The parameters in which features are linear, one in every product.

        Args:
            value: The features.
            homogeneous: Whether to go on past ``relu`` and its like.

        Returns:
            ``None`` when they are linear in none, or something else is added to them.
        """
        path = Path()
        return path if self._walk(value, path, homogeneous) else None

    def _walk(self, value: Value, path: Path, homogeneous: bool) -> bool:
        if value in path.values:
            return True
        path.values.append(value)
        if value in self.uses.weights:
            return False  # a parameter is taken where it is used
        operation = value.source
        if operation is None:
            return False
        if operation.name in MOVES or (homogeneous and operation.name in _HOMOGENEOUS):
            return self._walk(operation.inputs[0], path, homogeneous)
        if operation.name in _SUMS:
            return all(self._term(operation, term, path, homogeneous) for term in operation.inputs)
        return self._product(operation, path, homogeneous)

    def _term(self, operation: Operation, term: Value, path: Path, homogeneous: bool) -> bool:
        if term in self.uses.weights:
            return self._take(operation, path, only=term)
        if term.kind in ("data",):
            return term.number == 0.0
        return self._walk(term, path, homogeneous)

    def _product(self, operation: Operation, path: Path, homogeneous: bool) -> bool:
        if operation.name in NORMS:
            return operation.arguments.get("weight") is not None and self._take(operation, path)
        if self.uses.by_operation.get(operation.index):
            kinds = {use.kind for use in self.uses.by_operation[operation.index]}
            named = operation.name in (
                "mul",
                "embedding",
                "_embedding_bag",
                "index",
                "index_select",
            )
            if kinds & {MATRIX, LOOKUP} or named:
                return self._take(operation, path)
            return False
        if operation.name in ("mul", "div"):
            factors = [v for v in operation.inputs if v.kind != "data"]
            factors = factors[:1] if operation.name == "div" else factors
            if operation.name == "div" and operation.arguments["self"] not in factors:
                return False
            return any(self._tried(factor, path, homogeneous) for factor in factors)
        return any(self._tried(factor, path, homogeneous) for factor in factors_of(operation))

    def _tried(self, value: Value, path: Path, homogeneous: bool) -> bool:
        attempt = Path(dict(path.parameters), list(path.values), set(path.taken))
        if not self._walk(value, attempt, homogeneous):
            return False
        path.parameters, path.values = attempt.parameters, attempt.values
        path.taken = attempt.taken
        return True

    def _take(self, operation: Operation, path: Path, only: Value | None = None) -> bool:
        """The parameters that an operation uses, less those under a norm of their own."""
        for use in self.uses.by_operation.get(operation.index, []):
            if only is not None and use.parameter not in self.uses.weights[only]:
                continue
            if use.how == "nonlinear" or use.kind == "raw":
                return False
            path.parameters.setdefault(use.parameter, operation)
            path.taken.add(operation.index)
        added = operation.arguments.get("self") if operation.name in ("addmm", "baddbmm") else None
        if isinstance(added, Value) and added.kind != PARAMETER and added not in self.uses.weights:
            return False
        return bool(path.parameters)

    # --- folding

    def fold(self, values: tuple[Value, ...], consumer: Operation) -> tuple[FoldTarget, ...]:
        """What to multiply so that ``values`` are multiplied and nothing else changes.

        Args:
            values: Features; of several, all.
            consumer: The operation that is to see them multiplied.

        Returns:
            The parameters, whole or some of their rows; empty when there are none such.
        """
        path = Path()
        if not all(self._walk(value, path, True) for value in values):
            return ()
        for name in path.parameters:
            uses = [use for use in self.uses.all if use.parameter == name]
            if any(use.operation.index not in path.taken for use in uses):
                return ()
            if use_is_normalized(uses):
                return self._gain_of(path)
        leaks = self._leaks(path, consumer)
        if not leaks:
            return tuple(FoldTarget(parameter=name) for name in path.parameters)
        return self._rows(path, values[0], leaks) if len(values) == 1 else ()

    def _gain_of(self, path: Path) -> tuple[FoldTarget, ...]:
        """Of a normalized weight the norms are multiplied, and what is added."""
        normalized = {g.of for g in self.uses.gains.values()}
        rest = [name for name in path.parameters if name not in normalized]
        return tuple(FoldTarget(parameter=name) for name in rest)

    def _leaks(self, path: Path, consumer: Operation) -> list[tuple[Value, Operation]]:
        on_path = {id(v) for v in path.values}
        leaks: list[tuple[Value, Operation]] = []
        for value in path.values:
            if self.program.is_output(value):
                leaks.append((value, consumer))
            for user in self.users(value):
                if user is consumer:
                    continue
                if not any(id(out) in on_path for out in user.outputs):
                    leaks.append((value, user))
                elif len(user.outputs) > 1:
                    others = [out for out in user.outputs if id(out) not in on_path]
                    leaks += [(value, use) for out in others for use in self.users(out)[:1]]
        return leaks

    def _rows(
        self, path: Path, value: Value, leaks: Iterable[tuple[Value, Operation]]
    ) -> tuple[FoldTarget, ...]:
        """The rows of one fused projection that make some features, if they make nothing else."""
        operations = {op.index: op for op in path.parameters.values()}
        makers = [op for op in operations.values() if self._matrices(op)]
        if len(makers) != 1:
            return ()
        maker = makers[0]
        rows = row_set(feature_index(value, maker, {}))
        if rows is None:
            return ()
        for held, user in leaks:
            if self.program.is_output(held):
                return ()
            for out in user.outputs:
                others = row_set(feature_index(out, maker, {}))
                if others is None and user.name not in MOVES:
                    others = row_set(feature_index(held, maker, {}))
                if others is None or others & rows:
                    if id(out) in {id(v) for v in path.values}:
                        continue
                    return ()
        return tuple(self._target(name, maker, rows) for name in path.parameters)

    def _matrices(self, operation: Operation) -> bool:
        return any(u.kind == MATRIX for u in self.uses.by_operation.get(operation.index, []))

    def _target(self, name: str, maker: Operation, rows: frozenset[int]) -> FoldTarget:
        leaf = self.program.parameters[name]
        axis = 0
        if len(leaf.shape) > 1:
            size = maker.output.shape[1 if maker.name == "convolution" else -1]
            axis = axis_of_rows(self.uses, leaf, maker, size)
        return FoldTarget(parameter=name, axis=axis, spans=spans_of(sorted(rows)))


def use_is_normalized(uses: Iterable[object]) -> bool:
    """Whether a parameter counts by its direction alone."""
    return any(str(getattr(use, "how", "")).startswith("normalized") for use in uses)


def forward_factor(linearity: Linearity, value: Value) -> tuple[float, Value]:
    """The numbers that follow a value until something else is done, and the last value."""
    factor = 1.0
    while True:
        users = linearity.users(value)
        if len(users) != 1 or linearity.program.is_output(value):
            return factor, value
        (user,) = users
        step = scalar(user, value)
        plain = user.name in MOVES or user.name in ("add", "sub") or step != 1.0
        if not plain or len(user.outputs) != 1:
            return factor, value
        factor, value = factor * step, user.output


def backward_factor(value: Value) -> tuple[float, Value]:
    """The numbers that a value was multiplied with last, and what they were put on."""
    factor = 1.0
    while (operation := value.source) is not None:
        source = operation.inputs[0] if operation.inputs else None
        if source is None:
            return factor, value
        if operation.name in ("mul", "div"):
            features = [v for v in operation.inputs if v.kind != "data"]
            if len(features) != 1:
                return factor, value
            step = scalar(operation, features[0])
            if step == 1.0 and len(operation.inputs) > 1:
                return factor, value
            factor, value = factor * step, features[0]
        elif operation.name in MOVES:
            value = source
        else:
            return factor, value
    return factor, value
