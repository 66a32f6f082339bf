"""Reductions of features as they are."""

from collections.abc import Iterator, Mapping
from math import prod

from thetaone.parametrization.reading.paths._degrees import size_cancels
from thetaone.parametrization.reading.paths._factors import (
    DISTANCES,
    NORMS,
    ROOTS,
    THROUGH,
    forward_factor,
    norm_power,
    size_by_norm,
)
from thetaone.parametrization.reading.paths._linear import HOMOGENEOUS, Linearity
from thetaone.parametrization.reading.paths._pairs import hold_parameters, pairs_of
from thetaone.parametrization.reading.paths._stacks import stacked_terms
from thetaone.parametrization.reading.program import (
    ACTIVATION,
    DATA,
    MOVES,
    Operation,
    Value,
    is_zero,
    scalar,
    summed_axes,
)
from thetaone.records import FACTOR, TERMS, UNIT, Reduction

_REDUCTIONS = frozenset(
    "sum _softmax _log_softmax logsumexp cumsum prod nansum".split()  # noqa: SIM905
) | {*NORMS}
_FOURIER, _ADDS = "_fft_", ("add", "sub")
_FUNCTIONS = frozenset(
    "gelu silu tanh sigmoid exp softplus elu mish erf sin cos log_sigmoid_forward".split()  # noqa: SIM905
)  # of which the size of their input is not a factor on their result
_FEW = 2  # terms of a sum that is no loop


def read_reductions(linearity: Linearity) -> tuple[Reduction, ...]:
    """Every reduction of features that no mean, norm or product explains."""
    reductions: list[Reduction] = []
    for operation in linearity.live():
        name, size = operation.name.strip("_"), _reduced(linearity, operation)
        terms, number = _terms(linearity, operation)
        if terms > _FEW:
            name, size = TERMS, terms
        if size > 1 and not size_cancels(linearity, operation.output):
            factor = number * forward_factor(linearity, operation.output)[0]
            reductions.append(
                Reduction(
                    where=operation.where,
                    operation=name,
                    order=operation.index,
                    size=size,
                    power=_power(operation),
                    factor=factor,
                )
            )
    return tuple(reductions) + tuple(_unit_norms(linearity))


def _unit_norms(linearity: Linearity) -> Iterator[Reduction]:
    """Features divided by their norm over n of them, 1/√n, where something of size 1 meets them.

    A matrix and a gain take the factor; a sum with others and a function of them cannot.
    """
    sizes: dict[Value, float] = {}
    for operation in linearity.live():
        met = [value for value in operation.inputs if value in sizes]
        size = _size_after(linearity, operation, sizes)
        if met and size is None and not size_cancels(linearity, met[0]):
            yield Reduction(
                where=operation.where,
                operation=UNIT,
                order=operation.index,
                size=1,
                factor=sizes[met[0]],
            )
        elif size:
            sizes[operation.output] = size


def _size_after(
    linearity: Linearity, operation: Operation, sizes: Mapping[Value, float]
) -> float | None:
    """The size by norms of what an operation makes; 0 for what is no such, ``None`` for a mixture.

    Args:
        linearity: Of the program.
        operation: One of the program.
        sizes: Of the features that norms made small.
    """
    first, name = operation.inputs[0] if operation.inputs else None, operation.name
    if name in ("mul", "div") and operation.output.kind == ACTIVATION:
        if _divides_by_own_norm(operation):
            return size_by_norm(operation)
        features = [v for v in operation.inputs if v.kind != DATA]
        alone = len(features) == 1 and features[0] in sizes
        return sizes[features[0]] * scalar(operation, features[0]) if alone else 0.0
    if first not in sizes and not any(value in sizes for value in operation.inputs):
        return 0.0
    if name in _FUNCTIONS:
        return None
    if name in ("add", "sub"):
        small = [value in sizes or is_zero(value) for value in operation.inputs]
        return max(sizes.get(v, 0.0) for v in operation.inputs) if all(small) else None
    return sizes.get(first, 0.0) if first and name in (*MOVES, *HOMOGENEOUS) else 0.0


def _divides_by_own_norm(operation: Operation) -> bool:
    """Whether an operation divides features by their 2-norm, or multiplies by its reciprocal."""
    if len(operation.inputs) != 2 or size_by_norm(operation) == 1.0:
        return False
    features, norm = sorted(operation.inputs, key=lambda value: -prod(value.shape))
    source = norm.source
    while source is not None and (source.name in MOVES or source.name in THROUGH):
        source = source.inputs[0].source
    if source is None:
        return False
    of = source.inputs[0]
    if (
        source.name == "sum"
        and of.source is not None
        and of.source.name in ("pow", "square", "mul")
    ):
        of = of.source.inputs[0]
    return of is features


def read_factors(linearity: Linearity) -> tuple[Reduction, ...]:
    """The numbers put on features that no other record holds; to be read after all of them."""
    factors: list[Reduction] = []
    for operation in linearity.live():
        if operation.index in linearity.counted or operation.output.kind != ACTIVATION:
            continue
        if not operation.output.shape:
            continue  # the loss's own scale: Adam does not see it, and SGD's updates show it
        number = prod(scalar(operation, v) for v in operation.inputs if v.kind == ACTIVATION)
        if number != 1.0 and not size_cancels(linearity, operation.output):
            factors.append(
                Reduction(
                    where=operation.where,
                    operation=FACTOR,
                    order=operation.index,
                    size=1,
                    factor=number,
                )
            )
    return tuple(factors)


def _power(operation: Operation) -> float:
    """With which power of its size a reduction grows: a Fourier transform as a 2-norm."""
    if operation.name.startswith(_FOURIER):
        return 0.5 - 0.5 * int(operation.arguments["normalization"])
    return norm_power(operation)


def _reduced(linearity: Linearity, operation: Operation) -> int:
    """Features that an operation reduces without a rule; 0 when there is one, or none are."""
    if operation.name.startswith(_FOURIER):
        return prod(operation.output.shape[d] for d in operation.arguments["dim"])
    if operation.output.kind != ACTIVATION:
        return 0
    if operation.name in DISTANCES:
        return operation.inputs[0].shape[-1]
    if stacked_terms(operation):
        return 0
    pairs = list(pairs_of(operation))
    if operation.name in ("mm", "bmm", "addmm", "baddbmm") and pairs:
        first, second, size = pairs[0]
        fixed = DATA in (first.kind, second.kind) and not hold_parameters(linearity, first, second)
        return size if fixed and not (is_zero(first) or is_zero(second)) else 0
    if operation.name not in _REDUCTIONS or operation.index in linearity.uses.summed:
        return 0
    source = operation.inputs[0]
    if source.kind != ACTIVATION or pairs:
        return 0
    if operation.name in ("sum", *NORMS) and _normalizes(linearity, operation):
        return 0
    return prod(source.shape[d] for d in summed_axes(operation))


def _terms(linearity: Linearity, operation: Operation) -> tuple[int, float]:
    """How many features a sum adds, one after another or as a stack, and the number on each."""
    stacked = stacked_terms(operation)
    if stacked:
        fixed = all(term.weight is None for term in stacked)
        return (
            (len(stacked), sum(term.factor for term in stacked) / len(stacked))
            if fixed
            else (0, 1.0)
        )
    users = linearity.users(operation.output)
    if operation.name not in _ADDS or (len(users) == 1 and users[0].name in _ADDS):
        return 0, 1.0
    count, front = 0, [operation]
    while front:
        for value in front.pop().inputs:
            inner = value.source
            if inner and inner.name in _ADDS and len(linearity.users(value)) == 1:
                front.append(inner)
            else:
                count += value.kind == ACTIVATION
    return count, 1.0


def _normalizes(linearity: Linearity, operation: Operation) -> bool:
    """Whether a norm divides features: what it was made from, or others."""
    front, seen = [operation.output], 0
    while front and seen < 12:
        value = front.pop()
        seen += 1
        for user in linearity.users(value):
            if user.name == "div" and user.arguments["other"] is value:
                return True
            if user.name == "mul" and value.source is not None and value.source.name in ROOTS:
                return value.source.name in ("rsqrt", "reciprocal", "pow")
            if user.name in MOVES or user.name in THROUGH:
                front.append(user.output)
    return False
