"""How a program uses each parameter: in sums, as a table of rows, or one entry a feature.

A parameter is followed through views, casts, slices and products with other parameters to every
operation in which it meets features.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from thetaone.parametrization.reading.program._axes import MOVES, Axes, broadcast, moved
from thetaone.parametrization.reading.program._contractions import (
    FACTORS,
    PRODUCTS,
    Factor,
    attention_scale,
    result_axes,
    scalar,
    summed_axes,
)
from thetaone.parametrization.reading.program._parts import (
    LINEAR,
    NONLINEAR,
    NORMALIZED,
    SPECTRAL,
    Gain,
    ParameterUse,
    Part,
    Uses,
)
from thetaone.parametrization.reading.program._program import (
    ACTIVATION,
    INPUT,
    PARAMETER,
    Operation,
    Program,
    Value,
)
from thetaone.records import LOOKUP, MATRIX, RAW, VECTOR

NORMS = frozenset(
    """native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm miopen_batch_norm
    _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
    _batch_norm_no_update _fused_rms_norm rms_norm""".split()  # noqa: SIM905
)
_SUMS = ("sum", "mean")
_STATISTICS = ("sum", "mean", "linalg_vector_norm", "norm", "amax", "amin", "std", "var")
_CAT = ("cat", "stack")
_ATTENTION = "_scaled_dot_product"


def read_uses(program: Program, spectral: frozenset[str] = frozenset()) -> Uses:
    """Every use of every parameter.

    Args:
        program: Of one forward pass.
        spectral: Names of modules that divide a weight by its spectral norm.
    """
    reader = _Reader(spectral)
    for name, leaf in program.parameters.items():
        reader.uses.weights[leaf] = {name: Part((True,) * len(leaf.shape))}
    for operation in program.operations:
        reader.take(operation)
    for use in reader.uses.all:
        reader.uses.by_operation.setdefault(use.operation.index, []).append(use)
    return reader.uses


class _Reader:
    """Walks through the operations once."""

    def __init__(self, spectral: frozenset[str]) -> None:
        self.uses = Uses()
        self.spectral = spectral
        # features linear in a parameter, along axes over which a sum belongs to its fan-in
        self.linear: dict[Value, dict[str, tuple[ParameterUse, Axes]]] = {}

    def take(self, operation: Operation) -> None:
        """Follow the parameters through one operation."""
        held = [v for v in dict.fromkeys(operation.inputs) if v in self.uses.weights]
        if operation.where in self.spectral and operation.output.kind == PARAMETER:
            self._spectral(operation, held)
        elif not held:
            self._features(operation)
        elif operation.output.kind != PARAMETER and operation.name not in MOVES:
            self._meet(operation, held)
        elif operation.name in MOVES:
            self._move(operation)
        else:
            self._weights(operation, held)

    # --- features alone

    def _features(self, operation: Operation) -> None:
        sources = [v for v in dict.fromkeys(operation.inputs) if v in self.linear]
        if not sources:
            return
        if operation.name in MOVES and operation.inputs[0] in self.linear:
            held = self.linear[operation.inputs[0]]
            for output in operation.outputs:
                self.linear[output] = {
                    name: (use, moved(operation, axes)) for name, (use, axes) in held.items()
                }
        elif operation.name in _SUMS:
            self._sum(operation, self.linear[sources[0]])
        elif operation.name in ("add", "sub", "rsub", *PRODUCTS):
            entries: dict[str, tuple[ParameterUse, Axes]] = {}
            for value in sources:
                for name, (use, axes) in self.linear[value].items():
                    entries[name] = (use, broadcast(axes, value.shape, operation.output.shape))
            self.linear[operation.output] = entries

    def _sum(self, operation: Operation, held: Mapping[str, tuple[ParameterUse, Axes]]) -> None:
        """A sum over an axis along which a parameter varies: a contraction in two steps."""
        shape = operation.inputs[0].shape
        dims = summed_axes(operation)
        for use, axes in held.values():
            summed = [d for d in dims if axes[d]]
            size = prod(shape[d] for d in summed)
            if size == 1:
                continue
            if use.kind == VECTOR:
                use.kind, use.fan_in = MATRIX, 1
                use.fan_out = prod(n for d, n in enumerate(shape) if axes[d] and d not in summed)
            use.fan_in *= size
            self.uses.summed.add(operation.index)
            if operation.name == "mean":
                use.factor /= size

    # --- parameters alone

    def _move(self, operation: Operation) -> None:
        held = self.uses.weights.get(operation.inputs[0])
        if held is None:  # an index computed from a parameter
            self._meet(operation, [v for v in operation.inputs if v in self.uses.weights])
            return
        picked = any(v.kind in (ACTIVATION, INPUT) for v in operation.inputs[1:])
        if picked and len(operation.inputs[0].shape) <= 2:
            self._look_up(operation, held)
            return
        for output in operation.outputs:
            self.uses.weights[output] = {
                name: replace(part, axes=moved(operation, part.axes)) for name, part in held.items()
            }

    def _weights(self, operation: Operation, held: list[Value]) -> None:
        """A value computed from parameters alone."""
        name, out = operation.name, operation.output
        if name == "_weight_norm_interface":
            self._weight_norm(operation)
        elif name in FACTORS:
            self._product(operation)
        elif name in _STATISTICS:
            self._statistic(operation, held[0])
        else:
            kept = name in ("add", "sub", "rsub", *PRODUCTS, *_CAT, "write", "copy")
            parts: dict[str, Part] = {}
            for value in held:
                for parameter, part in self.uses.weights[value].items():
                    part = self._elementwise(operation, value, part, kept=kept)
                    other = parts.get(parameter)
                    if other is not None and other.how != part.how:
                        axes = tuple(a or b for a, b in zip(other.axes, part.axes, strict=True))
                        part = replace(part, axes=axes, how=_joined(other.how, part.how))
                    parts[parameter] = part
            self.uses.weights[out] = parts
            if name in PRODUCTS:
                self._set_gains(parts)

    def _elementwise(self, operation: Operation, value: Value, part: Part, *, kept: bool) -> Part:
        out = operation.output.shape
        axes = broadcast(part.axes, value.shape, out) if len(value.shape) <= len(out) else part.axes
        how = part.how if kept or part.how != LINEAR else NONLINEAR
        return replace(part, axes=axes, how=how, factor=part.factor * scalar(operation, value))

    def _statistic(self, operation: Operation, value: Value) -> None:
        shape, dims = value.shape, summed_axes(operation)
        kept = [d for d in range(len(shape)) if d not in dims]
        same = len(operation.output.shape) == len(shape)
        count = prod(shape[d] for d in dims)
        self.uses.weights[operation.output] = {
            name: Part(
                tuple(a and d not in dims for d, a in enumerate(part.axes))
                if same
                else tuple(part.axes[d] for d in kept),
                how=f"norm {count}",
            )
            for name, part in self.uses.weights[value].items()
        }

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

    def _spectral(self, operation: Operation, held: list[Value]) -> None:
        for value in held:
            if value.shape == operation.output.shape:
                self.uses.weights[operation.output] = {
                    name: replace(part, how=SPECTRAL)
                    for name, part in self.uses.weights[value].items()
                }

    def _product(self, operation: Operation) -> None:
        """Two parameters multiplied as matrices, as in LoRA."""
        parts: dict[str, Part] = {}
        for key, factor in FACTORS[operation.name](operation).items():
            value = operation.arguments[key]
            for name, part in self.uses.weights.get(value, {}).items():
                axes = result_axes(operation, factor, part.axes, value.shape)
                size = prod(value.shape[d] for d in factor.summed if part.axes[d])
                parts[name] = replace(part, axes=axes, inner=part.inner * size)
        self.uses.weights[operation.output] = parts

    # --- parameters and features

    def _meet(self, operation: Operation, held: list[Value]) -> None:
        name = operation.name
        if name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
            self._look_up(operation, self.uses.weights[held[0]])
        elif name in FACTORS:
            self._contract(operation)
        elif name.startswith(_ATTENTION):
            self._attend(operation)
        elif name in NORMS or name == "enter" or self._acts_one_by_one(operation):
            self._act(operation, held)
        else:
            for value in held:
                for parameter, part in self.uses.weights[value].items():
                    self.uses.all.append(ParameterUse(parameter, RAW, operation, how=part.how))

    def _contract(self, operation: Operation) -> None:
        factors = FACTORS[operation.name](operation)
        for key, factor in factors.items():
            value = operation.arguments[key]
            for parameter, part in self.uses.weights.get(value, {}).items():
                use = _contraction(operation, parameter, part, factor, value.shape)
                self.uses.all.append(use)
                batch = Factor(batch=factor.batch, kept=(), summed=factor.summed, at=factor.at)
                axes = result_axes(operation, batch, part.axes, value.shape)
                self.linear.setdefault(operation.output, {})[parameter] = (use, axes)
        for key, value in operation.arguments.items():
            if key in factors or not isinstance(value, Value) or value not in self.uses.weights:
                continue
            if key in ("self", "bias"):
                self._act(operation, [value])
            else:  # as the features of a convolution
                for parameter in self.uses.weights[value]:
                    self.uses.all.append(ParameterUse(parameter, RAW, operation))

    def _attend(self, operation: Operation) -> None:
        """A learned query or key as it is: one side of the logits."""
        for key in ("query", "key", "value"):
            value = operation.arguments[key]
            for parameter, part in self.uses.weights.get(value, {}).items():
                factor = Factor(batch=(0, 1), kept=(2,), summed=(3,), at=(2,))
                if key == "value":
                    factor = Factor(batch=(0, 1), kept=(3,), summed=(2,), at=(3,))
                use = _contraction(operation, parameter, part, factor, value.shape)
                if key != "value":
                    use.factor *= attention_scale(operation)
                self.uses.all.append(use)

    def _act(self, operation: Operation, held: list[Value]) -> None:
        """One entry a feature: added, multiplied, or whatever else is done one by one."""
        out = operation.output
        linear: dict[str, tuple[ParameterUse, Axes]] = {}
        for value in held:
            for parameter, part in self.uses.weights[value].items():
                fan_out = prod(n for n, a in zip(value.shape, part.axes, strict=True) if a)
                use = ParameterUse(
                    parameter, VECTOR, operation, fan_out=fan_out, factor=part.factor, how=part.how
                )
                self.uses.all.append(use)
                if operation.name in PRODUCTS:
                    linear[parameter] = (use, broadcast(part.axes, value.shape, out.shape))
        if linear:
            self.linear[out] = linear

    def _look_up(self, operation: Operation, held: Mapping[str, Part]) -> None:
        table: Any = operation.arguments.get("weight", operation.arguments.get("self"))
        for parameter, part in held.items():
            picked = [i for i, v in enumerate(operation.arguments.get("indices") or [0])
                      if isinstance(v, Value)] if operation.name == "index" else [0]  # fmt: skip
            rest = [n for d, n in enumerate(table.shape) if d not in picked]
            self.uses.all.append(
                ParameterUse(
                    parameter,
                    LOOKUP,
                    operation,
                    fan_out=prod(rest),
                    factor=part.factor,
                    how=part.how,
                )
            )

    def _acts_one_by_one(self, operation: Operation) -> bool:
        shapes = [v.shape for v in operation.inputs]
        rank, out = max(map(len, shapes)), operation.output.shape
        if operation.name in (*_CAT, "write", "copy"):
            return True
        padded = [(1,) * (rank - len(s)) + s for s in shapes]
        sizes = tuple(max(column) for column in zip(*padded, strict=True))
        return sizes == out


def _contraction(
    operation: Operation, parameter: str, part: Part, factor: Factor, shape: tuple[int, ...]
) -> ParameterUse:
    summed = prod(shape[d] for d in factor.summed if part.axes[d]) * factor.times
    kept = prod(shape[d] for d in factor.kept if part.axes[d]) * factor.wide
    if part.inner > 1 and summed > 1:
        kept *= part.inner  # x A in x (B A): B sums over the rest
    elif part.inner > 1:
        summed = part.inner
    return ParameterUse(
        parameter,
        MATRIX,
        operation,
        fan_in=summed,
        fan_out=kept,
        factor=part.factor,
        how=part.how,
        fan_one=max(shape[1:]) if operation.name == "_trilinear" else 0,
    )


def _joined(one: str, other: str) -> str:
    """One factor is v and one ‖v‖: the product holds v normalized."""
    pair = {one.split()[0], other.split()[0]}
    if pair == {LINEAR, "norm"}:
        count = next(how for how in (one, other) if how.startswith("norm")).split()[1]
        return f"{NORMALIZED} {count}"
    return NONLINEAR
