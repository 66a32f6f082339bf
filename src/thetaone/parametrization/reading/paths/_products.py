"""Sums over products of two features, such as attention logits: what can be multiplied in place."""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from thetaone.parametrization.reading.paths._degrees import size_cancels
from thetaone.parametrization.reading.paths._factors import (
    backward_factor,
    forward_factor,
    normalized_size,
)
from thetaone.parametrization.reading.paths._folding import Fold, Folding
from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.paths._pairs import (
    hold_parameters,
    origin_of,
    pairs_of,
    spread,
)
from thetaone.parametrization.reading.program import (
    ACTIVATION,
    Operation,
    Value,
    attention_scale,
)
from thetaone.records import FeatureProduct, FoldTarget

_SOFTMAX = ("_softmax", "_safe_softmax")  # the second is that of attention without its kernel
_MASKS = ("masked_fill", "where", "add")  # before a softmax


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """One sum over products of two features.

    Attributes:
        operation: That sums.
        factors: The two features.
        size: Features summed over [count].
        scale: The number that the operation itself puts on the sum.
    """

    operation: Operation
    factors: tuple[Value, Value]
    size: int
    scale: float

    @property
    def consumer(self) -> Operation:
        """The operation that takes both factors: of a sum of a product, the product."""
        if self.operation.name in ("sum", "mean"):
            return origin_of(self.operation.inputs[0]) or self.operation
        return self.operation


def read_products(linearity: Linearity) -> tuple[FeatureProduct, ...]:
    """Every sum over products of two features, in order of execution."""
    sums = list(_sums(linearity))
    folding = Folding(linearity)
    candidates = [_candidates(folding, one) for one in sums]
    products = []
    for i, one in enumerate(sums):
        sides, same, shared = _settled(candidates, i)
        products.append(
            FeatureProduct(
                where=one.operation.where,
                operation=one.operation.name.strip("_"),
                order=one.operation.index,
                size=one.size,
                factor=_factor(linearity, one),
                sides=sides,
                same=same,
                shared=sums[shared].operation.index if shared is not None else None,
                cancels=_cancels(linearity, one),
                behind=_behind(linearity, one),
                attention=_is_attention(linearity, one),
                spread=candidates[i].spread if sides and not same else 1,
            )
        )
    return tuple(products)


def _sums(linearity: Linearity) -> Iterator[_Sum]:
    for operation in linearity.live():
        if operation.name.startswith("_scaled_dot_product"):
            query, key = operation.arguments["query"], operation.arguments["key"]
            scale = attention_scale(operation)
            if not hold_parameters(linearity, query, key):  # a learned query is a weight on keys
                yield _Sum(operation, (query, key), query.shape[-1], scale)
            continue
        for first, second, size in pairs_of(operation):
            if operation.name == "_trilinear" and hold_parameters(
                linearity, operation.arguments["i2"]
            ):
                continue  # a sum over products of two with a weight for each
            features = first.kind == second.kind == ACTIVATION
            if features and not hold_parameters(linearity, first, second):
                alpha = float(operation.arguments.get("alpha", 1))
                scale = alpha / size if operation.name == "mean" else alpha
                yield _Sum(operation, (first, second), size, scale)


def _factor(linearity: Linearity, one: _Sum) -> float:
    """All numbers on the sum; of factors divided by their norms, 1/√n each."""
    factor = one.scale * forward_factor(linearity, one.operation.output)[0]
    for side in one.factors:
        number, origin = backward_factor(side, linearity.counted)
        factor *= number * normalized_size(origin)
    return factor


def _is_attention(linearity: Linearity, one: _Sum) -> bool:
    """Whether a softmax takes the sum, past numbers, masks and other shapes."""
    if one.operation.name.startswith("_scaled_dot_product"):
        return True
    value = one.operation.output
    while True:
        _, value = forward_factor(linearity, value)
        users = linearity.users(value)
        if any(user.name in _SOFTMAX for user in users):
            return True
        if len(users) != 1 or users[0].name not in _MASKS:
            return False
        value = users[0].output


def _cancels(linearity: Linearity, one: _Sum) -> bool:
    """Whether the size of the sum is of no effect, as where it is divided by one like it."""
    makers = [origin_of(value) for value in one.factors]
    values = [maker.output for maker in makers if maker is not None]
    if not one.operation.name.startswith("_scaled_dot_product"):
        values.append(one.operation.output)
    return any(size_cancels(linearity, value) for value in values)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Folds that multiply one factor of a sum, or both."""

    one: tuple[Fold, ...]
    both: Fold | None = None
    spread: int = 1  # rows of the factor that is a matrix made by a layer, if one is


def _candidates(folding: Folding, one: _Sum) -> _Candidates:
    first, second = one.factors
    spreads = {value: spread(folding.linearity, value, one.operation) for value in one.factors}
    widest = max(spreads.values())
    values = [value for value in spreads if spreads[value] == widest]
    folds = [folding.fold((value,), one.consumer) for value in values]
    possible = [fold for fold in folds if fold is not None]
    if possible and first is not second:
        whole_first = sorted(possible, key=lambda fold: any(t.spans for t in fold.targets))
        return _Candidates(tuple(whole_first), spread=widest)
    return _Candidates((), folding.fold(one.factors, one.consumer))


Sides = tuple[tuple[FoldTarget, ...], ...]


def _settled(candidates: list[_Candidates], i: int) -> tuple[Sides, bool, int | None]:
    """The sides of a sum, whether they are both, and the first of the sums that share them."""
    both = candidates[i].both
    if both is not None and not both.elsewhere:
        return (both.targets,), True, None
    free = tuple(fold.targets for fold in candidates[i].one if not fold.elsewhere)
    if free:
        return free, False, None
    for fold in candidates[i].one:
        makes_both = len([one for one in candidates[i].one if one.targets == fold.targets]) > 1
        alike = {
            j: other
            for j, each in enumerate(candidates)
            for other in each.one
            if other.targets == fold.targets
        }
        if fold.elsewhere <= frozenset().union(*(other.taken for other in alike.values())):
            return (fold.targets,), makes_both, min(alike)
    return (), False, None


def _behind(linearity: Linearity, one: _Sum) -> tuple[str, ...]:
    """The parameters whose every effect passes through the factors of a product."""
    consumer, factors = one.consumer, one.factors
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
