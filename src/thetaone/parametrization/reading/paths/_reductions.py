"""Reductions of features as they are."""

from math import inf, prod

from thetaone.parametrization.reading.paths._degrees import size_cancels
from thetaone.parametrization.reading.paths._factors import NORMS, ROOTS, THROUGH, forward_factor
from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.paths._pairs import hold_parameters, origin_of, pairs_of
from thetaone.parametrization.reading.program import ACTIVATION, DATA, MOVES, Operation, summed_axes
from thetaone.records import Reduction

_REDUCTIONS = frozenset(
    "sum _softmax _log_softmax logsumexp cumsum prod nansum".split()  # noqa: SIM905
) | {*NORMS}
_DISTANCES = ("_euclidean_dist", "_cdist_forward")


def read_reductions(linearity: Linearity) -> tuple[Reduction, ...]:
    """Every reduction of features that no mean, norm or product explains."""
    reductions: list[Reduction] = []
    for operation in linearity.live():
        size = _reduced(linearity, operation)
        if size > 1 and not size_cancels(linearity, operation.output):
            factor, _ = forward_factor(linearity, operation.output)
            reductions.append(
                Reduction(
                    where=operation.where,
                    operation=operation.name.strip("_"),
                    order=operation.index,
                    size=size,
                    power=_power(operation),
                    factor=factor,
                )
            )
    return tuple(reductions)


def _power(operation: Operation) -> float:
    """With which power of its size a reduction grows: a p-norm with 1/p."""
    if operation.name in (*NORMS, *_DISTANCES):
        order = operation.arguments.get("ord", operation.arguments.get("p", 2)) or 2
        return 0.0 if order == inf else 1 / float(order)
    return 1.0


def _reduced(linearity: Linearity, operation: Operation) -> int:
    """Features that an operation reduces without a rule; 0 when there is one, or none are."""
    if operation.output.kind != ACTIVATION:
        return 0
    if operation.name in _DISTANCES:
        return operation.inputs[0].shape[-1]
    pairs = list(pairs_of(operation))
    if operation.name in ("mm", "bmm", "addmm", "baddbmm") and pairs:
        first, second, size = pairs[0]
        fixed = DATA in (first.kind, second.kind) and not hold_parameters(linearity, first, second)
        return size if fixed else 0
    if operation.name not in _REDUCTIONS or operation.index in linearity.uses.summed:
        return 0
    source = operation.inputs[0]
    if source.kind != ACTIVATION or pairs or _is_stack(operation):
        return 0
    if operation.name in ("sum", *NORMS) and _normalizes(linearity, operation):
        return 0
    return prod(source.shape[d] for d in summed_axes(operation))


def _is_stack(operation: Operation) -> bool:
    """Whether a sum adds up what was stacked or joined just before."""
    origin = origin_of(operation.inputs[0])
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
            if user.name == "mul" and value.source is not None and value.source.name in ROOTS:
                return value.source.name in ("rsqrt", "reciprocal", "pow")
            if user.name in MOVES or user.name in THROUGH:
                front.append(user.output)
    return False
