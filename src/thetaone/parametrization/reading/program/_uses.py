"""How a program uses each parameter: in sums, as a table of rows, or one entry a feature.

A parameter is followed through views, casts, slices and products with other parameters to every
operation in which it meets features.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from thetaone.parametrization.reading.program._axes import MOVES, Axes, broadcast, moved
from thetaone.parametrization.reading.program._contractions import (
    FACTORS,
    PRODUCTS,
    Factor,
    attention_scale,
    result_axes,
    summed_axes,
)
from thetaone.parametrization.reading.program._parts import (
    AFTERWARDS,
    LINEAR,
    LOSS,
    STATISTIC,
    ParameterUse,
    Part,
    Uses,
)
from thetaone.parametrization.reading.program._program import (
    ACTIVATION,
    DATA,
    INPUT,
    PARAMETER,
    Operation,
    Program,
    Value,
)
from thetaone.parametrization.reading.program._weights import Weights
from thetaone.records import LOOKUP, MATRIX, RAW, VECTOR

NORMS = frozenset(
    """native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm miopen_batch_norm
    _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
    _batch_norm_no_update _fused_rms_norm rms_norm""".split()  # noqa: SIM905
)
_SUMS = ("sum", "mean")
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
        self.weights = Weights(self.uses)
        self.spectral = spectral
        # features linear in a parameter, along axes over which a sum belongs to its fan-in
        self.linear: dict[Value, dict[str, tuple[ParameterUse, Axes]]] = {}

    def take(self, operation: Operation) -> None:
        """Follow the parameters through one operation."""
        if operation.is_gradient:
            return
        held = [v for v in dict.fromkeys(operation.inputs) if v in self.uses.weights]
        if operation.where in self.spectral and operation.output.kind == PARAMETER:
            self.weights.take_spectral(operation, held)
        elif not held:
            self._features(operation)
        elif operation.output.kind != PARAMETER and operation.name not in MOVES:
            self._meet(operation, held)
        elif operation.name in MOVES:
            self._move(operation, held)
        else:
            self.weights.take(operation, held)

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
            use.copies = max(1, use.copies // size)  # added up, they are one
            self.uses.summed.add(operation.index)
            if operation.name == "mean":
                use.factor /= size

    # --- parameters and features

    def _move(self, operation: Operation, held: list[Value]) -> None:
        parts = self.uses.weights.get(operation.inputs[0])
        if parts is None:  # an index computed from a parameter
            self._meet(operation, held)
        elif _is_picked(operation):
            self._look_up(operation, parts)
        else:
            self.weights.move(operation, parts)

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
                if use.kind != MATRIX:
                    continue
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
            parts = self.uses.weights[value]
            if _is_penalty(operation, value):
                self.uses.penalized |= parts.keys()
                continue
            for parameter, part in parts.items():
                use = _one_by_one(operation, parameter, parts, value.shape)
                if _multiplies_loss(operation, value):
                    use.kind, use.how = RAW, LOSS
                self.uses.all.append(use)
                if operation.name in PRODUCTS and use.kind == VECTOR:
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
    if part.gain:
        fan_out = prod(n for n, a in zip(shape, part.axes, strict=True) if a)
        return ParameterUse(
            parameter,
            VECTOR,
            operation,
            fan_out=fan_out * part.inner,
            factor=part.factor,
            how=part.how,
        )
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
        copies=prod(shape[d] for d in factor.batch if part.axes[d]),
        factor=part.factor,
        how=part.how,
        fan_one=max(shape[1:]) if operation.name == "_trilinear" else 0,
    )


def _one_by_one(
    operation: Operation, parameter: str, parts: Mapping[str, Part], shape: tuple[int, ...]
) -> ParameterUse:
    """A parameter of which each feature has an entry, or a sum over products with another one."""
    part = parts[parameter]
    sizes = {n: prod(s for s, a in zip(shape, p.axes, strict=True) if a) for n, p in parts.items()}
    use = ParameterUse(
        parameter, VECTOR, operation,
        fan_out=sizes[parameter], factor=part.factor, how=part.how,
    )  # fmt: skip
    if part.how.split()[0] == STATISTIC:
        use.kind = RAW
    elif part.inner > 1:
        use.how = LINEAR if part.how == AFTERWARDS else part.how
        pair = sorted(part.mates)
        if len(pair) > 2 or any(parts[name].mates != part.mates for name in pair):
            use.kind = RAW
        elif parameter == max(pair, key=lambda name: sizes[name]):
            use.kind, use.fan_in = MATRIX, part.inner
        else:
            use.fan_out *= part.inner  # what it sums over
    return use


def _is_penalty(operation: Operation, value: Value) -> bool:
    """Whether a number computed from parameters is added to a loss: no feature depends on it."""
    computed = value.source is not None and value.source.name not in MOVES
    if not computed or value.shape != () or operation.name not in ("add", "sub", "rsub", "stack"):
        return False
    return all(v.shape == () for v in operation.inputs) or _is_averaged(operation.output)


def _multiplies_loss(operation: Operation, value: Value) -> bool:
    """Whether a number computed from parameters is a factor on a number that the pass returns."""
    computed = value.source is not None and value.source.name not in MOVES
    whole = operation.name in PRODUCTS and operation.output.shape == value.shape == ()
    return computed and whole and _is_averaged(operation.output)


def _is_averaged(losses: Value) -> bool:
    """Whether features are losses of samples: added or averaged, they are the pass's result."""
    while len(losses.users) == 1 and losses.users[0].name in (*_SUMS, *PRODUCTS, "add", "sub"):
        (user,) = losses.users
        if user.name in PRODUCTS and any(v.kind != DATA for v in user.inputs if v is not losses):
            return False
        losses = user.output
    return losses.shape == () and not losses.users


def _is_picked(operation: Operation) -> bool:
    """Whether features say which rows of a table are taken."""
    by = operation.inputs[1:]
    few = len(operation.inputs[0].shape) <= 2
    return few and any(v.kind in (ACTIVATION, INPUT) for v in by)
