"""Reductions of features as they are."""

from math import prod

from thetaone.parametrization.reading.paths._degrees import size_cancels
from thetaone.parametrization.reading.paths._factors import (
    DISTANCES,
    NORMS,
    ROOTS,
    THROUGH,
    forward_factor,
    norm_power,
)
from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.paths._pairs import hold_parameters, pairs_of
from thetaone.parametrization.reading.paths._stacks import stacked_terms
from thetaone.parametrization.reading.program import (
    ACTIVATION,
    DATA,
    MOVES,
    Operation,
    is_zero,
    scalar,
    summed_axes,
)
from thetaone.records import FACTOR, TERMS, Reduction

_REDUCTIONS = frozenset(
    "sum _softmax _log_softmax logsumexp cumsum prod nansum".split()  # noqa: SIM905
) | {*NORMS}
_FOURIER, _ADDS = "_fft_", ("add", "sub")
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
    return tuple(reductions)


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
