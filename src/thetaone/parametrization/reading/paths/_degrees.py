"""Whether a pass's result changes when some features are multiplied by a number > 0."""

from thetaone.parametrization.reading.paths._linear import HOMOGENEOUS, SUMS, Linearity
from thetaone.parametrization.reading.program import (
    DATA,
    MOVES,
    NORMS,
    TINY,
    Operation,
    Value,
    adds_number,
    factors_of,
    is_zero,
)

_POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "square": 2.0}
_SAME = frozenset("clamp clamp_min maximum linalg_vector_norm norm std max min".split())  # noqa: SIM905


def size_cancels(linearity: Linearity, value: Value) -> bool:
    """Whether features may be multiplied by any number > 0 without a change of the result.

    Follows the degree in which everything computed from them is homogeneous in that number:
    all of it must come to 0 before it reaches the result, as under a norm or in a ratio of sums.
    """
    degrees: dict[Value, float] = {value: 1.0}
    if linearity.program.is_output(value):
        return False
    start = 0 if value.source is None else value.source.index + 1
    for operation in linearity.program.following(start):
        if not linearity.is_live(operation) or not any(v in degrees for v in operation.inputs):
            continue
        degree = _degree(operation, degrees)
        if degree is None or (degree and any(map(linearity.program.is_output, operation.outputs))):
            return False
        if degree:
            degrees |= dict.fromkeys(operation.outputs, degree)
    return True


def _degree(operation: Operation, degrees: dict[Value, float]) -> float | None:
    """The degree of an operation's result; ``None`` where it has none."""
    of = [degrees.get(value, 0.0) for value in operation.inputs]
    first, rest = of[0], of[1:]
    name = operation.name
    if name in NORMS:
        return 0.0 if not any(rest) else None
    if name in SUMS or name in _SAME:
        terms = {d for v, d in zip(operation.inputs, of, strict=True) if not _is_tiny(v)}
        bounds = (operation.arguments.get(key) for key in ("min", "max"))
        guards = all(abs(n) < TINY for n in bounds if isinstance(n, (int, float)))
        return terms.pop() if len(terms) == 1 and guards and not adds_number(operation) else None
    if name == "mul":
        return sum(of) if len(of) == 2 else first
    if name == "div":
        numerator = degrees.get(operation.arguments["self"], 0.0)
        return 2 * numerator - sum(of) if len(of) == 2 else first
    if name in _POWERS:
        return _POWERS[name] * first
    if name == "pow" and isinstance(operation.arguments.get("exponent"), (int, float)):
        return first * float(operation.arguments["exponent"])
    if name in MOVES or name in HOMOGENEOUS:
        return first if not any(rest) else None
    factors = factors_of(operation)
    if factors:
        added = [v for v in operation.inputs if v not in factors and not _is_tiny(v)]
        return None if added else sum(degrees.get(v, 0.0) for v in factors)
    return None


def _is_tiny(value: Value) -> bool:
    """Whether a term of a sum is zero, or an ε."""
    if value.kind != DATA:
        return False
    return is_zero(value) or (value.number is not None and abs(value.number) < TINY)
