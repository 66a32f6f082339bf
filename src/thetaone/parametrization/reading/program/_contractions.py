"""Contractions: which axes of their factors are summed over, kept, or go along. No parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from thetaone.parametrization.reading.program._axes import MOVES, Axes
from thetaone.parametrization.reading.program._program import DATA, Operation, Value

PRODUCTS = ("mul", "div")
_ZEROS = ("zeros", "new_zeros", "zeros_like", "_efficientzerotensor")
TINY = 1e-3  # an ε that only guards against a division by zero


@dataclass(frozen=True, slots=True)
class Factor:
    """Axes of one factor of a contraction, and where those kept stand in the result."""

    batch: tuple[int, ...]
    kept: tuple[int, ...]
    summed: tuple[int, ...]
    at: tuple[int, ...]
    times: int = 1  # entries summed over beside them
    wide: int = 1  # features kept beside them


def result_axes(operation: Operation, factor: Factor, axes: Axes, shape: tuple[int, ...]) -> Axes:
    """The axes of a contraction's result along which one of its factors varies."""
    result = [False] * len(operation.output.shape)
    for d in factor.batch:
        if d < len(result):
            result[d] = axes[d] and shape[d] > 1
    for d, at in zip(factor.kept, factor.at, strict=False):
        if at < len(result):
            result[at] = axes[d]
    return tuple(result)


def _matrices(first: str, second: str, batch: int) -> Callable[[Operation], dict[str, Factor]]:
    lead = tuple(range(batch))

    def factors(_: Operation) -> dict[str, Factor]:
        return {
            first: Factor(lead, (batch,), (batch + 1,), (batch,)),
            second: Factor(lead, (batch + 1,), (batch,), (batch + 1,)),
        }

    return factors


def _vectors(first: str, second: str) -> Callable[[Operation], dict[str, Factor]]:
    def factors(operation: Operation) -> dict[str, Factor]:
        rank = len(operation.arguments[first].shape)
        rows = tuple(range(rank - 1))
        return {
            first: Factor((), rows, (rank - 1,), rows),
            second: Factor((), (), (0,), ()),
        }

    return factors


def _linear(_: Operation) -> dict[str, Factor]:
    return {"weight": Factor((), (0,), (1,), ())}


def _convolution(operation: Operation) -> dict[str, Factor]:
    shape, groups = operation.arguments["weight"].shape, operation.arguments["groups"]
    taps = prod(shape[2:])
    if operation.arguments["transposed"]:  # (in, out / groups, *kernel)
        wide = groups * taps
        if groups == 1:
            return {"weight": Factor((), (1,), (0,), (), times=taps, wide=wide)}
        return {"weight": Factor((), (1,), (), (), times=taps * shape[0] // groups, wide=wide)}
    met = zip(shape[2:], operation.output.shape[2:], strict=True)
    wide = prod(n for n, places in met if places > 1)  # with one place, each tap is one entry
    return {"weight": Factor((), (0,), (1,), (), times=taps, wide=wide)}


def _trilinear(_: Operation) -> dict[str, Factor]:
    return {"i2": Factor((), (0,), (1, 2), ())}


def _grouped(operation: Operation) -> dict[str, Factor]:
    rank = len(operation.arguments["mat2"].shape)
    return {"mat2": Factor(tuple(range(rank - 2)), (rank - 1,), (rank - 2,), (1,))}


FACTORS: Mapping[str, Callable[[Operation], dict[str, Factor]]] = {
    "mm": _matrices("self", "mat2", 0),
    "addmm": _matrices("mat1", "mat2", 0),
    "bmm": _matrices("self", "mat2", 1),
    "baddbmm": _matrices("batch1", "batch2", 1),
    "mv": _vectors("self", "vec"),
    "addmv": _vectors("mat", "vec"),
    "dot": _vectors("self", "tensor"),
    "vdot": _vectors("self", "other"),
    "convolution": _convolution,
    "linear": _linear,
    "_grouped_mm": _grouped,
    "_trilinear": _trilinear,
}

_PAIRS: Mapping[str, tuple[str, ...]] = {
    "convolution": ("input", "weight"),
    "linear": ("input", "weight"),
    "_grouped_mm": ("self", "mat2"),
    "_trilinear": ("i1", "i3"),
}


def factors_of(operation: Operation) -> tuple[Value, ...]:
    """The two values that a contraction multiplies; empty for another operation."""
    if operation.name not in FACTORS:
        return ()
    keys = _PAIRS.get(operation.name) or tuple(FACTORS[operation.name](operation))
    return tuple(operation.arguments[key] for key in keys)


def summed_axes(operation: Operation) -> tuple[int, ...]:
    """The axes that a reduction runs over."""
    rank = len(operation.inputs[0].shape)
    dims = operation.arguments.get("dim")
    if dims is None or dims == []:
        return tuple(range(rank))
    return tuple(d % max(rank, 1) for d in (dims if isinstance(dims, list) else [dims]))


def scalar(operation: Operation, value: Value) -> float:
    """The number that an operation multiplies one of its inputs with; 1 when it is none."""
    if operation.name in ("add", "sub") and operation.arguments["other"] is value:
        alpha = operation.arguments.get("alpha", 1)
        return float(alpha) if isinstance(alpha, (int, float)) else 1.0
    if operation.name not in PRODUCTS:
        return 1.0
    first, other = operation.arguments["self"], operation.arguments["other"]
    if operation.name == "div" and first is not value:
        return 1.0
    rest = other if first is value else first
    if isinstance(rest, Value) and rest.kind != DATA:
        return 1.0
    number = rest.number if isinstance(rest, Value) else rest
    if not isinstance(number, (int, float)) or number == 0:
        return 1.0
    return float(number) if operation.name == "mul" else 1.0 / float(number)


def adds_number(operation: Operation) -> bool:
    """Whether a sum adds one number, larger than an ε that guards a division, to all entries."""
    other = operation.arguments.get("other") if operation.name in ("add", "sub", "rsub") else None
    return isinstance(other, (int, float)) and abs(other) >= TINY


def is_zero(value: Value) -> bool:
    """Whether all entries are known to be 0, as of the derivative of what is held."""
    source = value.source
    if value.number == 0 or source is None:
        return value.number == 0
    moved = source.name in MOVES or source.name == "to"
    return source.name in _ZEROS or (moved and is_zero(source.inputs[0]))


def attention_scale(operation: Operation) -> float:
    """The factor that a fused attention puts on its logits."""
    scale = operation.arguments.get("scale")
    return float(scale) if scale is not None else operation.arguments["query"].shape[-1] ** -0.5


def kept_axes(operation: Operation, value: Value) -> tuple[int, ...]:
    """The axes of one factor of a contraction that its result keeps; empty where it is none."""
    if operation.name not in FACTORS:
        return ()
    factors = FACTORS[operation.name](operation)
    return next((f.kept for key, f in factors.items() if operation.arguments[key] is value), ())
