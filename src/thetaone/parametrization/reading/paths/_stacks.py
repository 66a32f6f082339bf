"""Sums over a stack of features: the terms that were stacked, and what each is multiplied with.

``torch.stack(terms).sum(0)``, its mean, and ``einsum('l,lbd->bd', w, torch.stack(terms))`` add the
terms up; the axis that they sum over counts terms and no features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from thetaone.parametrization.reading.program import (
    ACTIVATION,
    FACTORS,
    INPUT,
    MOVES,
    Axes,
    Operation,
    Value,
    moved,
    scalar,
    summed_axes,
)

_CONTRACTIONS = ("mm", "bmm", "mv")
_REORDERS = ("flip", "roll", "index", "index_select", "gather")


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One term of a sum.

    Attributes:
        value: The features.
        factor: The number that they are multiplied with.
        weight: What else they are multiplied with, such as a learned weight; ``None`` for nothing.
    """

    value: Value
    factor: float = 1.0
    weight: Value | None = None


def stacked_terms(operation: Operation) -> tuple[Term, ...]:
    """The features that a sum adds up which were stacked before; none for any other sum."""
    for stacked, axes, weight, factor in _readings(operation):
        stack = _stack_behind(stacked, axes)
        if stack is not None:
            count = len(stack.inputs)
            numbers = [1.0] * count if weight is None else _numbers(weight, count)
            if numbers is None:
                return tuple(Term(value, factor, weight) for value in stack.inputs)
            pairs = zip(stack.inputs, numbers, strict=True)
            return tuple(Term(value, factor * number) for value, number in pairs if number)
    return ()


def _readings(
    operation: Operation,
) -> Iterator[tuple[Value, tuple[int, ...], Value | None, float]]:
    """What may be a stack, the axes summed over, the weights of its terms, a number on all."""
    if operation.name in ("sum", "mean"):
        value, axes = operation.inputs[0], summed_axes(operation)
        size = prod(value.shape[d] for d in axes)
        factor = 1 / size if operation.name == "mean" and size else 1.0
        yield value, axes, None, factor
        product = value.source
        if product is None or product.name != "mul" or len(product.inputs) != 2:
            return
        for stacked, weight in (product.inputs, product.inputs[::-1]):
            along = all(n == 1 or d in axes for d, n in _aligned(weight, value))
            if stacked.shape == value.shape and along:
                yield stacked, axes, weight, factor
    elif operation.name in _CONTRACTIONS:
        factors = list(FACTORS[operation.name](operation).items())
        for (key, mine), (other, theirs) in (factors, factors[::-1]):
            weight = operation.arguments[other]
            if all(weight.shape[d] == 1 for d in (*theirs.batch, *theirs.kept)):
                yield operation.arguments[key], mine.summed, weight, 1.0


def _aligned(value: Value, with_: Value) -> Iterator[tuple[int, int]]:
    """The sizes of a value by the axes of what it is broadcast to."""
    lead = len(with_.shape) - len(value.shape)
    return ((d + lead, n) for d, n in enumerate(value.shape))


def _stack_behind(value: Value, summed: tuple[int, ...]) -> Operation | None:
    """The operation that stacked features along just the axes that are summed over."""
    moves: list[Operation] = []
    stack = value.source
    while stack is not None and stack.name in MOVES and stack.name not in _REORDERS:
        moves.append(stack)
        stack = stack.inputs[0].source
    if stack is None or stack.name not in ("stack", "cat") or len(stack.inputs) < 2:
        return None
    if any(term.kind not in (ACTIVATION, INPUT) for term in stack.inputs):
        return None
    axis = int(stack.arguments.get("dim", 0)) % max(len(stack.output.shape), 1)
    if stack.name == "cat" and any(term.shape[axis] != 1 for term in stack.inputs):
        return None
    axes: Axes = tuple(d == axis for d in range(len(stack.output.shape)))
    for move in reversed(moves):
        axes = moved(move, axes)
    counting = tuple(d for d, counts in enumerate(axes) if counts)
    whole = prod(value.shape[d] for d in counting) == len(stack.inputs)
    return stack if whole and counting == tuple(sorted(summed)) else None


def _numbers(weight: Value, count: int) -> list[float] | None:
    """The weights of the terms, where they are known numbers."""
    if weight.constant is None or weight.constant.is_complex():
        return None
    entries = [float(entry) for entry in weight.constant.flatten().tolist()]
    return entries * count if len(entries) == 1 else entries if len(entries) == count else None


def number_on(operation: Operation) -> tuple[float, Value] | None:
    """The number that an operation does nothing but multiply features with, and the features.

    One for a move that keeps every entry, such as a view.
    """
    if operation.name in MOVES and operation.name not in _REORDERS:
        whole = [prod(v.shape) for v in operation.outputs] == [prod(operation.inputs[0].shape)]
        return (1.0, operation.inputs[0]) if whole else None
    if operation.name not in ("mul", "div"):
        return None
    features = [value for value in operation.inputs if value.kind in (ACTIVATION, INPUT)]
    if len(features) != 1 or len(operation.inputs) > 2:
        return None
    number = scalar(operation, features[0])
    known = number != 1.0 or len(operation.inputs) == 1
    return (number, features[0]) if known else None
