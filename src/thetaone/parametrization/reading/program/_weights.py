"""Values computed from parameters alone: what each holds of every parameter in it."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from thetaone.parametrization.reading.program._axes import Axes, broadcast, moved
from thetaone.parametrization.reading.program._contractions import (
    FACTORS,
    PRODUCTS,
    TINY,
    adds_number,
    result_axes,
    scalar,
    summed_axes,
)
from thetaone.parametrization.reading.program._parts import (
    AFTERWARDS,
    LINEAR,
    NONLINEAR,
    NORMALIZED,
    PRODUCT,
    SHIFTED,
    SPECTRAL,
    STATISTIC,
    Gain,
    Part,
    Uses,
)
from thetaone.parametrization.reading.program._program import DATA, Operation, Value

_KEPT = (
    "add", "sub", "rsub", *PRODUCTS, "cat", "stack", "write", "copy", "complex",
)  # fmt: skip
_SUMS = ("sum", "mean")
_LINEAR = (LINEAR, PRODUCT)
_STATISTICS = (*_SUMS, "linalg_vector_norm", "norm", "amax", "amin", "std", "var")


class Weights:
    """Follows parameters through operations on parameters alone.

    Args:
        uses: Its ``weights`` and ``gains`` are filled in.
    """

    def __init__(self, uses: Uses) -> None:
        self.uses = uses

    def move(self, operation: Operation, parts: Mapping[str, Part]) -> None:
        """Follow them through one that moves entries."""
        for output in operation.outputs:
            self.uses.weights[output] = {
                name: replace(part, axes=moved(operation, part.axes))
                for name, part in parts.items()
            }

    def take(self, operation: Operation, held: list[Value]) -> None:
        """Follow them through any other one."""
        if operation.name == "_weight_norm_interface":
            self._weight_norm(operation)
        elif operation.name in FACTORS:
            self._product(operation)
        elif operation.name in _STATISTICS:
            self._statistic(operation, held[0])
        else:
            self._one_by_one(operation, held)

    def take_spectral(self, operation: Operation, held: list[Value]) -> None:
        """Follow a weight through its division by its spectral norm."""
        for value in held:
            if value.shape == operation.output.shape:
                self.uses.weights[operation.output] = {
                    name: replace(part, how=SPECTRAL)
                    for name, part in self.uses.weights[value].items()
                }

    def _one_by_one(self, operation: Operation, held: list[Value]) -> None:
        kept = operation.name in _KEPT
        parts: dict[str, Part] = {}
        for value in held:
            for parameter, part in self.uses.weights[value].items():
                part = self._elementwise(operation, value, part, kept=kept)
                other = parts.get(parameter)
                parts[parameter] = part if other is None else _merged(other, part)
        self.uses.weights[operation.output] = parts
        if operation.name in PRODUCTS:
            self._set_gains(parts)
            if len(held) == 2:
                self._mark_products(operation, held, parts)

    def _elementwise(self, operation: Operation, value: Value, part: Part, *, kept: bool) -> Part:
        axes = broadcast(part.axes, value.shape, operation.output.shape)
        how = part.how
        if how == LINEAR and not kept:
            how = AFTERWARDS if part.inner > 1 else NONLINEAR
        elif how == LINEAR and _is_shifted(operation):
            how = SHIFTED
        return replace(part, axes=axes, how=how, factor=part.factor * scalar(operation, value))

    def _mark_products(
        self, operation: Operation, held: list[Value], parts: dict[str, Part]
    ) -> None:
        """``g · W`` is W with a gain g for each row; ``M · W``, entry by entry, is neither."""
        along = [self._along(value, operation.output.shape) for value in held]
        for (value, other), (mine, theirs) in zip(
            (held, held[::-1]), (along, along[::-1]), strict=True
        ):
            for name in self.uses.weights[value].keys() - self.uses.weights[other].keys():
                if mine < theirs:
                    parts[name] = replace(parts[name], gain=True)
                elif mine == theirs and mine and parts[name].how == LINEAR:
                    parts[name] = replace(parts[name], how=PRODUCT)

    def _along(self, value: Value, shape: tuple[int, ...]) -> set[int]:
        """The axes of an operation's result along which one of its inputs varies."""
        parts = self.uses.weights[value].values()
        axes = [broadcast(part.axes, value.shape, shape) for part in parts]
        return {d for one in axes for d, varies in enumerate(one) if varies}

    def _statistic(self, operation: Operation, value: Value) -> None:
        shape, dims = value.shape, summed_axes(operation)
        same = len(operation.output.shape) == len(shape)
        parts = self.uses.weights[value]
        linear = operation.name in _SUMS and all(p.how in _LINEAR for p in parts.values())

        def reduced(axes: Axes) -> Axes:
            if same:
                return tuple(a and d not in dims for d, a in enumerate(axes))
            return tuple(a for d, a in enumerate(axes) if d not in dims)

        def after(part: Part) -> Part:
            size = prod(shape[d] for d in dims)
            if not linear:
                how = f"{STATISTIC} {size}" if _is_norm(operation) else NONLINEAR
                return Part(reduced(part.axes), how=how)
            inner = part.inner * prod(shape[d] for d in dims if part.axes[d])
            factor = part.factor / (size if operation.name == "mean" else 1)
            return Part(reduced(part.axes), factor=factor, inner=inner, mates=frozenset(parts))

        self.uses.weights[operation.output] = {name: after(part) for name, part in parts.items()}

    def _set_gains(self, parts: Mapping[str, Part]) -> None:
        """``g · v / ‖v‖``: v counts by its direction, g by its size."""
        normalized = {n: p for n, p in parts.items() if p.how.startswith(NORMALIZED)}
        for name, part in normalized.items():
            count = int(part.how.split()[1])
            for other in parts.keys() - normalized.keys():
                self.uses.gains[other] = Gain(name, count)

    def _weight_norm(self, operation: Operation) -> None:
        v, g = operation.arguments["v"], operation.arguments["g"]
        count = prod(v.shape) // max(1, prod(g.shape))
        parts: dict[str, Part] = {}
        for name, part in self.uses.weights[v].items():
            parts[name] = replace(part, how=f"{NORMALIZED} {count}")
            for other in self.uses.weights[g]:
                self.uses.gains[other] = Gain(name, count)
                parts[other] = Part(broadcast((True,) * len(g.shape), g.shape, v.shape))
        self.uses.weights[operation.output] = parts

    def _product(self, operation: Operation) -> None:
        """Two parameters multiplied as matrices, as in LoRA."""
        parts: dict[str, Part] = {}
        factors = FACTORS[operation.name](operation)
        held = [self.uses.weights.get(operation.arguments[key], {}) for key in factors]
        mates = frozenset(name for one in held for name in one)
        for key, factor in factors.items():
            value = operation.arguments[key]
            for name, part in self.uses.weights.get(value, {}).items():
                axes = result_axes(operation, factor, part.axes, value.shape)
                size = prod(value.shape[d] for d in factor.summed if part.axes[d])
                part = replace(part, axes=axes, inner=part.inner * size, mates=mates)
                amid = size > 1 and part.inner > size  # of three, the one in the middle
                parts[name] = replace(part, how=NONLINEAR) if amid or name in parts else part
        self.uses.weights[operation.output] = parts


def _is_shifted(operation: Operation) -> bool:
    """Whether a sum adds constants to parameters."""
    if operation.name not in ("add", "sub", "rsub"):
        return False
    constants = [value.number for value in operation.inputs if value.kind == DATA]
    return adds_number(operation) or any(n is None or abs(n) >= TINY for n in constants)


def _is_norm(operation: Operation) -> bool:
    """Whether a reduction is a 2-norm, or the sum of squares under its root."""
    if operation.name in ("linalg_vector_norm", "norm"):
        return operation.arguments.get("ord", operation.arguments.get("p", 2)) in (2, None)
    source = operation.inputs[0].source
    squares = source is not None and source.name in ("pow", "square", "mul")
    return operation.name == "sum" and squares


def _merged(one: Part, other: Part) -> Part:
    """One parameter in two terms, or factors, of one operation."""
    axes = tuple(a or b for a, b in zip(one.axes, other.axes, strict=True))
    how = one.how if one.how == other.how else _joined(one.how, other.how)
    fewer = min(one, other, key=lambda part: part.inner)
    return replace(fewer, axes=axes, how=how)


def _joined(one: str, other: str) -> str:
    """One factor is v and one ‖v‖: the product holds v normalized."""
    pair = {one.split()[0], other.split()[0]}
    if pair == {LINEAR, STATISTIC}:
        count = next(how for how in (one, other) if how.startswith(STATISTIC)).split()[1]
        return f"{NORMALIZED} {count}"
    return NONLINEAR
