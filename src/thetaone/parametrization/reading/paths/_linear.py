"""The parameters in which features are linear.

Past a positively homogeneous operation (``relu``) features are linear for factors > 0. A number
that is added ends it: a gain ``1 + g`` is no multiple of g, so that no factor can be moved into g.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from thetaone.parametrization.reading.program import (
    MOVES,
    NONLINEAR,
    NORMS,
    PARAMETER,
    SHIFTED,
    Operation,
    Program,
    Uses,
    Value,
    adds_number,
    factors_of,
)
from thetaone.records import LOOKUP, MATRIX, RAW

SUMS = (
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
HOMOGENEOUS = frozenset(
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
        self.counted: set[int] = set()  # operations whose number is in a record already
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
        """The operations that take a value and on which the pass's result depends.

        Gradients that the pass takes are not among them: they change as what they are of.
        """
        users = (user for user in value.users if self._live >> user.index & 1)
        return [user for user in users if not user.is_gradient]

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

    def joint_path(self, values: tuple[Value, ...]) -> Path | None:
        """The parameters in which all of some features are linear, or homogeneous."""
        path = Path()
        return path if all(self._walk(value, path, True) for value in values) else None

    def _walk(self, value: Value, path: Path, homogeneous: bool) -> bool:
        if value in path.values:
            return True
        path.values.append(value)
        if value in self.uses.weights:
            return False  # a parameter is taken where it is used
        operation = value.source
        if operation is None:
            return False
        if operation.name in MOVES or (homogeneous and operation.name in HOMOGENEOUS):
            return self._walk(operation.inputs[0], path, homogeneous)
        if operation.name in SUMS:
            terms = operation.inputs
            return not adds_number(operation) and all(
                self._term(operation, term, path, homogeneous) for term in terms
            )
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
        """The parameters that an operation uses, one in every product of several."""
        held = [only] if only is not None else [v for v in dict.fromkeys(operation.inputs)
                                                if v in self.uses.weights]  # fmt: skip
        names: set[str] = set()
        for value in held:
            inside = self._inside_weight(value)
            if inside is None:
                return False
            names |= inside
        for use in self.uses.by_operation.get(operation.index, []):
            if use.parameter not in names:
                continue
            if use.how in (NONLINEAR, SHIFTED) or use.kind == RAW:
                return False
            path.parameters.setdefault(use.parameter, operation)
            path.taken.add(operation.index)
        added = operation.arguments.get("self") if operation.name in ("addmm", "baddbmm") else None
        if isinstance(added, Value) and added.kind != PARAMETER and added not in self.uses.weights:
            return False
        return bool(path.parameters)

    def _inside_weight(self, value: Value) -> set[str] | None:
        """The parameters in which a weight is linear, one in every product; ``None`` for none."""
        operation = value.source
        if operation is None:
            return {value.name} if value.name else set() if value.number == 0.0 else None
        if operation.name == "_weight_norm_interface":
            return set(self.uses.weights[value])
        if any(part.how == "spectral" for part in self.uses.weights.get(value, {}).values()):
            return None
        inputs = list(dict.fromkeys(operation.inputs))
        if operation.name in MOVES:
            return self._inside_weight(operation.inputs[0])
        if operation.name in SUMS:
            terms = [self._inside_weight(one) for one in inputs]
            return None if None in terms else {name for term in terms for name in term or ()}
        if operation.name == "div" or factors_of(operation) or operation.name == "mul":
            held = [one for one in inputs if one in self.uses.weights]
            if operation.name == "div" and operation.arguments["self"] in held:
                below = [one for one in held if one is not operation.arguments["self"]]
                within = {name for one in below for name in self.uses.weights[one]}
                held = [operation.arguments["self"]]
                if within & self.uses.weights[held[0]].keys():
                    return None  # v / ‖v‖
            inside = (self._inside_weight(one) for one in held)
            return next((names for names in inside if names is not None), None)
        return None
