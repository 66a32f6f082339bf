"""Operations that sum over products of two values."""

from collections.abc import Iterator
from math import prod

from thetaone.parametrization.reading.paths._linear import HOMOGENEOUS, Linearity
from thetaone.parametrization.reading.program import (
    ACTIVATION,
    MOVES,
    Axes,
    Operation,
    Value,
    factors_of,
    kept_axes,
    moved,
    summed_axes,
)
from thetaone.records import MATRIX


def pairs_of(operation: Operation) -> Iterator[tuple[Value, Value, int]]:
    """The two factors of a sum of products, and how many features it sums over."""
    factors = factors_of(operation)
    if factors and operation.name == "convolution":
        features, kernel = factors
        yield features, kernel, prod(kernel.shape[1:])
    elif len(factors) == 2:
        yield *factors, _summed_size(operation, factors)
    elif operation.name in ("sum", "mean"):
        product = origin_of(operation.inputs[0])
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


def origin_of(value: Value) -> Operation | None:
    """The operation that made a value, before it was moved."""
    operation = value.source
    while operation is not None and operation.name in MOVES:
        operation = operation.inputs[0].source
    return operation


def hold_parameters(linearity: Linearity, *values: Value) -> bool:
    """Whether one of some values is made of parameters alone."""
    return any(value in linearity.uses.weights for value in values)


def spread(linearity: Linearity, value: Value, operation: Operation) -> int:
    """Rows of a matrix that one layer makes, as a factor of a sum: each of entries of its own.

    Of ``m(x) @ h`` with ``m = layer(x).view(n, n)`` they are n; of features, such as queries, 1.
    """
    axes = _feature_axes(linearity, value)
    kept = kept_axes(operation, value)
    if operation.name in ("sum", "mean"):
        product = origin_of(operation.inputs[0])
        kept = () if product is None else _kept_by(value, product, summed_axes(operation))
    return prod(value.shape[d] for d in kept if axes and axes[d])


def _kept_by(value: Value, product: Operation, summed: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of one factor of a product that the other has not, and that stay."""
    (other,) = [v for v in product.inputs if v is not value] or [value]
    rank = len(product.output.shape)
    lead, behind = rank - len(value.shape), rank - len(other.shape)

    def alone(axis: int) -> bool:
        return axis not in summed and (axis < behind or other.shape[axis - behind] == 1)

    return tuple(d for d in range(len(value.shape)) if alone(d + lead))


def _feature_axes(linearity: Linearity, value: Value) -> Axes | None:
    """The axes along which the output features of one layer lie; ``None`` where unknown."""
    operation = value.source
    if operation is None:
        return None
    if operation.name in MOVES:
        axes = _feature_axes(linearity, operation.inputs[0])
        return None if axes is None else moved(operation, axes)
    uses = linearity.uses.by_operation.get(operation.index, ())
    if any(use.kind == MATRIX for use in uses):
        return (*(False,) * (len(value.shape) - 1), True)
    features = [v for v in operation.inputs if v.kind == ACTIVATION]
    if operation.name in (*HOMOGENEOUS, "add", "mul", "div") and len(features) == 1:
        same = features[0].shape == value.shape
        return _feature_axes(linearity, features[0]) if same else None
    return None
