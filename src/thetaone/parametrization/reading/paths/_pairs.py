"""Operations that sum over products of two values."""

from collections.abc import Iterator
from math import prod

from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.program import (
    MOVES,
    Operation,
    Value,
    factors_of,
    summed_axes,
)


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
