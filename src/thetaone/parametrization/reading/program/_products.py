"""Sums over features themselves: products of two of them, and reductions of one."""

from collections.abc import Iterator
from heapq import heappop, heappush
from math import prod

from thetaone.parametrization.reading.program._axes import MOVES
from thetaone.parametrization.reading.program._contractions import (
    attention_scale,
    factors_of,
    summed_axes,
)
from thetaone.parametrization.reading.program._linear import (
    Linearity,
    backward_factor,
    forward_factor,
)
from thetaone.parametrization.reading.program._program import ACTIVATION, DATA, Operation, Value
from thetaone.records import FeatureProduct, FoldTarget, Reduction

_NORMS = ("linalg_vector_norm", "norm")
_REDUCTIONS = frozenset(
    "sum _softmax _log_softmax logsumexp cumsum prod nansum".split()  # noqa: SIM905
) | {*_NORMS}
_DISTANCES = ("_euclidean_dist", "_cdist_forward")
_ROOTS = ("sqrt", "rsqrt", "pow", "reciprocal")
_THROUGH = ("add", "clamp", "clamp_min", "clamp_max", "maximum", *_ROOTS)


def read_products(linearity: Linearity) -> tuple[FeatureProduct, ...]:
    """Every sum over products of two features, in order of execution."""
    found: list[FeatureProduct] = []
    for operation in linearity.live():
        if operation.name.startswith("_scaled_dot_product"):
            query, key = operation.arguments["query"], operation.arguments["key"]
            scale = attention_scale(operation)
            found.append(_product(linearity, operation, query, key, query.shape[-1], scale))
            continue
        for first, second, size in _pairs(operation):
            if operation.name == "_trilinear" and _weights(linearity, operation.arguments["i2"]):
                continue  # a sum over products of two with a weight for each
            if first.kind == second.kind == ACTIVATION and not _weights(linearity, first, second):
                alpha = float(operation.arguments.get("alpha", 1))
                scale = alpha / size if operation.name == "mean" else alpha
                found.append(_product(linearity, operation, first, second, size, scale))
    return tuple(found)


def read_reductions(linearity: Linearity) -> tuple[Reduction, ...]:
    """Every reduction of features that no mean, norm or product explains."""
    found: list[Reduction] = []
    for operation in linearity.live():
        size = _reduced(linearity, operation)
        if size > 1:
            factor, _ = forward_factor(linearity, operation.output)
            found.append(
                Reduction(
                    where=operation.where,
                    operation=operation.name.strip("_"),
                    order=operation.index,
                    size=size,
                    factor=factor,
                )
            )
    return tuple(found)


def _reduced(linearity: Linearity, operation: Operation) -> int:
    """Features that an operation reduces without a rule; 0 when there is one, or none are."""
    if operation.output.kind != ACTIVATION:
        return 0
    if operation.name in _DISTANCES:
        return operation.inputs[0].shape[-1]
    pairs = list(_pairs(operation))
    if operation.name in ("mm", "bmm", "addmm", "baddbmm") and pairs:
        first, second, size = pairs[0]
        fixed = DATA in (first.kind, second.kind) and not _weights(linearity, first, second)
        return size if fixed else 0
    if operation.name not in _REDUCTIONS or operation.index in linearity.uses.summed:
        return 0
    source = operation.inputs[0]
    if source.kind != ACTIVATION or pairs or _is_stack(operation):
        return 0
    if operation.name in ("sum", *_NORMS) and _normalizes(linearity, operation):
        return 0
    return prod(source.shape[d] for d in summed_axes(operation))


def _pairs(operation: Operation) -> Iterator[tuple[Value, Value, int]]:
    """The two factors of a sum of products, and how many features it sums over."""
    factors = factors_of(operation)
    if factors and operation.name == "convolution":
        features, kernel = factors
        yield features, kernel, prod(kernel.shape[1:])
    elif len(factors) == 2:
        yield *factors, _summed_size(operation, factors)
    elif operation.name in ("sum", "mean"):
        product = _origin(operation.inputs[0])
        if product is not None and product.name == "mul" and len(product.inputs) == 2:
            first, second = product.inputs
            same = first is second or operation.inputs[0].shape != product.output.shape
            dims = summed_axes(operation)
            both = not same and all(
                _spans_axis(v, d, product) for v in product.inputs for d in dims
            )
            if both and product.inputs[0].shape:
                yield first, second, prod(product.output.shape[d] for d in dims)


def _summed_size(operation: Operation, factors: tuple[Value, ...]) -> int:
    first = factors[0]
    return first.shape[-1] if first.shape else 1


def _spans_axis(value: Value, axis: int, product: Operation) -> bool:
    lead = len(product.output.shape) - len(value.shape)
    return axis >= lead and (value.shape[axis - lead] > 1 or product.output.shape[axis] == 1)


def _origin(value: Value) -> Operation | None:
    operation = value.source
    while operation is not None and operation.name in MOVES:
        operation = operation.inputs[0].source
    return operation


def _weights(linearity: Linearity, *values: Value) -> bool:
    return any(value in linearity.uses.weights for value in values)


def _product(
    linearity: Linearity, operation: Operation, first: Value, second: Value, size: int, scale: float
) -> FeatureProduct:
    factor = scale * forward_factor(linearity, operation.output)[0]
    for side in (first, second):
        number, origin = backward_factor(side)
        factor *= number * _normalized(origin)
    consumer = _consumer(operation)
    sides, same = _sides(linearity, consumer, first, second)
    return FeatureProduct(
        where=operation.where,
        operation=operation.name.strip("_"),
        order=operation.index,
        size=size,
        factor=factor,
        sides=sides,
        same=same,
        behind=_behind(linearity, consumer, (first, second)),
    )


def _sides(
    linearity: Linearity, consumer: Operation, first: Value, second: Value
) -> tuple[tuple[tuple[FoldTarget, ...], ...], bool]:
    """What can be multiplied in place of one factor, whole parameters first; else of both."""
    sides = [linearity.fold((value,), consumer) for value in dict.fromkeys((first, second))]
    possible = [side for side in sides if side]
    if possible and first is not second:
        return tuple(sorted(possible, key=lambda side: any(t.spans for t in side))), False
    both = linearity.fold((first, second), consumer)
    return ((both,), True) if both else ((), False)


def _consumer(operation: Operation) -> Operation:
    """The operation that takes both factors: of a sum of a product, the product."""
    if operation.name in ("sum", "mean"):
        return _origin(operation.inputs[0]) or operation
    return operation


def _behind(
    linearity: Linearity, consumer: Operation, factors: tuple[Value, ...]
) -> tuple[str, ...]:
    """The parameters whose every effect passes through the factors of a product."""
    cut = [value for value in factors if value is not consumer.arguments.get("value")]
    behind: set[int] = set()
    front: list[int] = []  # latest first, so that all users of a value come before its source

    def enter(values: tuple[Value, ...] | list[Value]) -> None:
        for value in values:
            if value.source is not None:
                heappush(front, -value.source.index)

    enter(cut)
    while front:
        operation = linearity.program.operations[-heappop(front)]
        users = [(value, user) for value in operation.outputs for user in linearity.users(value)]
        returned = any(linearity.program.is_output(value) for value in operation.outputs)
        if operation.index not in behind and not returned and all(
            user.index in behind or (user is consumer and value in cut) for value, user in users
        ):  # fmt: skip
            behind.add(operation.index)
            enter(operation.inputs)
    elsewhere = {
        use.parameter
        for use in linearity.uses.all
        if use.operation.index not in behind and linearity.is_live(use.operation)
    }
    uses = (use for i in sorted(behind) for use in linearity.uses.by_operation.get(i, ()))
    return tuple(dict.fromkeys(u.parameter for u in uses if u.parameter not in elsewhere))


def _normalized(value: Value) -> float:
    """1/√n for features divided by their norm over n of them; 1 for others."""
    operation = value.source
    if operation is None or operation.name not in ("div", "mul"):
        return 1.0
    for other in operation.inputs[1:] or ():
        norm = _norm_behind(other)
        if norm is not None:
            return prod(norm.inputs[0].shape[d] for d in summed_axes(norm)) ** -0.5
    return 1.0


def _norm_behind(value: Value) -> Operation | None:
    """The sum of squares that a divisor is made from."""
    operation = value.source
    while operation is not None and (operation.name in MOVES or operation.name in _THROUGH):
        operation = operation.inputs[0].source
    if operation is not None and (operation.name in _NORMS or operation.name == "sum"):
        return operation
    return None


def _is_stack(operation: Operation) -> bool:
    """Whether a sum adds up what was stacked or joined just before."""
    origin = _origin(operation.inputs[0])
    return operation.name == "sum" and origin is not None and origin.name in ("stack", "cat")


def _normalizes(linearity: Linearity, operation: Operation) -> bool:
    """Whether a norm divides features: what it was made from, or others."""
    front, seen = [operation.output], 0
    while front and seen < 12:
        value = front.pop()
        seen += 1
        for user in linearity.users(value):
            if user.name == "div" and user.arguments["other"] is value:
                return True
            if user.name == "mul" and value.source is not None and value.source.name in _ROOTS:
                return value.source.name in ("rsqrt", "reciprocal", "pow")
            if user.name in MOVES or user.name in _THROUGH:
                front.append(user.output)
    return False
