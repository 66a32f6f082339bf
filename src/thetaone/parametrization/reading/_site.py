"""One site a parameter, from all of its uses in a program."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from torch import nn

from thetaone.parametrization.reading._modules import class_name
from thetaone.parametrization.reading.paths import (
    Folding,
    Linearity,
    backward_factor,
    forward_factor,
    leaf_rows,
    size_behind_norm,
    size_cancels,
)
from thetaone.parametrization.reading.program import Operation, ParameterUse, Value, factors_of
from thetaone.records import LOOKUP, MATRIX, RAW, VECTOR, FoldTarget, Site, Use

Leaves = Mapping[int, list[tuple[str, nn.Module, str, nn.Parameter]]]

_UNRULY = {
    "nonlinear": " of a function of its entries",
    "norm": " of a sum or norm of its entries, which grows with their number (a mean does not),",
    "loss": " of the whole loss with a number made from it (add a penalty: loss + c · penalty)",
    "product": " of its product, entry by entry, with another parameter",
}


def assemble(model: nn.Module, leaves: Leaves, linearity: Linearity) -> tuple[Site, ...]:
    """The sites of a model whose program was read."""
    after = nearest(linearity)
    by_name: dict[str, list[ParameterUse]] = {}
    for use in linearity.uses.all:
        by_name.setdefault(use.parameter, []).append(use)
    return tuple(
        _site(model, entries, by_name.get(entries[0][0], []), linearity, after)
        for entries in leaves.values()
    )


def nearest(linearity: Linearity) -> dict[int, tuple[int, ...]]:
    """Of each operation that uses parameters, those of their like that feed it directly."""
    places = linearity.uses.by_operation
    near: dict[int, int] = {}  # as bits, of each operation
    feeding: dict[int, tuple[int, ...]] = {}
    for operation in linearity.program.operations:
        bits = 0
        for value in operation.inputs:
            if value.source is None or value.counts:
                continue  # what only chooses among features feeds none
            source = value.source.index
            bits |= 1 << source if source in places else near[source]
        near[operation.index] = bits
        if operation.index in places:
            feeding[operation.index] = tuple(_set_bits(bits))
    return feeding


def _set_bits(number: int) -> Iterator[int]:
    while number:
        yield number.bit_length() - 1
        number &= ~(1 << number.bit_length() - 1)


def _site(
    model: nn.Module,
    entries: list[tuple[str, nn.Module, str, nn.Parameter]],
    uses: list[ParameterUse],
    linearity: Linearity,
    after: Mapping[int, tuple[int, ...]],
) -> Site:
    name = entries[0][0]
    live = [use for use in uses if linearity.is_live(use.operation)]
    records = [_record(use, linearity, after) for use in live or uses]
    main, readouts, problem = _main_uses(records, _axis_of_results(live, linearity))
    if problem and any(_is_inner_step(use.operation, linearity) for use in live):
        problem = (
            "a gradient step inside the pass changes it, which no rule of one pass covers: "
            "prescribe from a pass without inner steps (sample=lambda model: …)"
        )
    if not records and name in linearity.uses.penalized:
        problem = "no feature depends on it: it is in a penalty of the loss alone"
    if not problem and any(_repeats(use, linearity) for use in main):
        problem = (
            f"one weight in {main[0].where or 'the model'} holds each of its entries many times"
        )
    if name in linearity.uses.gains:
        main, problem = [Use(kind=VECTOR, fan_out=entries[0][3].numel())], ""
    site = _with_uses(entries, main, readouts, problem, linearity)
    if not readouts or problem or main[0].kind != MATRIX:
        return site
    turned = _with_uses(entries, readouts, main, problem, linearity)
    return site.unchecked_copy(turned=turned)


def _with_uses(
    entries: list[tuple[str, nn.Module, str, nn.Parameter]],
    main: list[Use],
    readouts: list[Use],
    problem: str,
    linearity: Linearity,
) -> Site:
    name, module, _, parameter = entries[0]
    gain = linearity.uses.gains.get(name)
    first = main[0] if main else Use(kind=RAW)
    return Site(
        name=name,
        aliases=tuple(entry[0] for entry in entries[1:]),
        kind=first.kind if not problem else RAW,
        module=class_name(type(module)),
        shape=tuple(parameter.shape),
        fan_in=first.fan_in,
        fan_out=first.fan_out,
        fan_one=first.fan_one,
        trainable=parameter.requires_grad,
        factor=first.factor,
        uses=tuple(main),
        normed=first.kind == MATRIX
        and all(
            size_cancels(linearity, linearity.program.operations[u.order].output) for u in main
        ),
        norm_of=gain.of if gain else "",
        norm_count=gain.count if gain else 1,
        problem=problem,
        **_readout_fields(entries, readouts, linearity),
    )


def _is_inner_step(operation: Operation, linearity: Linearity) -> bool:
    """Whether an operation adds to a parameter what a gradient taken in the pass makes."""
    alike = all(value.shape == operation.output.shape for value in operation.inputs)
    if operation.name not in ("add", "sub") or not alike:
        return False
    before = 0
    for value in operation.inputs:
        before |= linearity.program.closure(value)
    operations = linearity.program.operations
    return any(before >> one.index & 1 for one in operations if one.is_gradient)


def _repeats(use: Use, linearity: Linearity) -> bool:
    """Whether a weight is made of fewer entries than it has, as by ``kron`` or an index."""
    if use.kind != MATRIX or use.operation == "convolution":
        return False
    names = {one.parameter for one in linearity.uses.by_operation.get(use.order, [])}
    leaves = linearity.program.parameters
    return use.fan_in * use.fan_out * use.copies > sum(prod(leaves[n].shape) for n in names)


def _main_uses(records: list[Use], axes: Mapping[int, int]) -> tuple[list[Use], list[Use], str]:
    """The uses of one kind, those of tied readouts, and what does not go together."""
    if not records:
        return [], [], "it has no effect on what the forward pass returns"
    bad = [use for use in records if use.kind == RAW or (use.kind == MATRIX and use.how in _UNRULY)]
    if bad:
        what = _UNRULY.get(bad[0].how, "")
        return [], [], f"it is used by {bad[0].operation}{what} in {bad[0].where or 'the model'}"
    by_kind: dict[str, list[Use]] = {}
    for use in records:
        by_kind.setdefault(use.kind, []).append(use)
    if by_kind.keys() == {LOOKUP, MATRIX}:
        width = by_kind[LOOKUP][0].fan_out
        mixing = [u for u in by_kind[MATRIX] if u.fan_out == width != u.fan_in]  # weighted rows
        readouts = [u for u in by_kind[MATRIX] if u not in mixing]
        return [*by_kind[LOOKUP], *mixing], readouts, ""
    if by_kind.keys() == {MATRIX}:
        return *_turned(by_kind[MATRIX], axes), ""
    if len(by_kind) > 1:
        ways = " and ".join(f"{uses[0].operation} ({kind})" for kind, uses in by_kind.items())
        return [], [], f"it is used by {ways}, for which no single learning rate is right"
    return records, [], ""


def _turned(uses: list[Use], axes: Mapping[int, int]) -> tuple[list[Use], list[Use]]:
    """A matrix, perhaps used transposed too, as in a tied autoencoder."""
    first = uses[0]
    if first.fan_in == first.fan_out:  # both ways alike: told by the axis that results lie along
        turned = [u for u in uses if axes.get(u.order, -1) != axes.get(first.order, -1)]
        turned = turned if all(use.order in axes for use in uses) else []
    else:
        turned = [u for u in uses if (u.fan_out, u.fan_in) == (first.fan_in, first.fan_out)]
    return [use for use in uses if use not in turned], turned


def _axis_of_results(uses: list[ParameterUse], linearity: Linearity) -> dict[int, int]:
    """Of each square use of a matrix, by order: the axis of it that its results lie along."""
    axes: dict[int, int] = {}
    for use in uses if len(uses) > 1 else []:
        if use.kind == MATRIX and use.fan_in == use.fan_out:
            leaf = linearity.program.parameters[use.parameter]
            rows = leaf_rows(linearity.uses, leaf, use.operation)
            axes |= {use.operation.index: rows[0]} if rows else {}
    return axes


def _record(use: ParameterUse, linearity: Linearity, after: Mapping[int, tuple[int, ...]]) -> Use:
    factor = use.factor * _surrounding(use, linearity)
    return Use(
        kind=use.kind, operation=use.operation.name.strip("_"), where=use.operation.where,
        order=use.operation.index, fan_in=use.fan_in, fan_out=use.fan_out, fan_one=use.fan_one,
        copies=use.copies,
        factor=factor, how=use.how.split()[0], after=after[use.operation.index],
    )  # fmt: skip


def _surrounding(use: ParameterUse, linearity: Linearity) -> float:
    """The numbers after a use, and those before it that no other use claims."""
    operation = use.operation
    if operation.name == "enter":
        return 1.0
    factor, last = forward_factor(linearity, operation.output)
    if _feeds_product(linearity, last):
        factor = 1.0  # what is put on logits is the attention's
    gain = operation.name == "mul" and use.fan_out > 1
    if use.kind != MATRIX and not gain:
        return factor
    met = operation.inputs if gain else factors_of(operation)
    features = [v for v in met if v not in linearity.uses.weights]
    for value in features[:1]:
        normed = size_behind_norm(value, linearity.counted)
        if normed is not None:
            return factor * normed
        passed: set[int] = set()
        number, origin = backward_factor(value, passed)
        if use.kind == MATRIX and not _claimed(linearity, origin):
            linearity.counted |= passed
            factor *= number
    return factor


def _claimed(linearity: Linearity, value: Value) -> bool:
    operation = value.source
    if operation is None:
        return False
    return bool(linearity.uses.by_operation.get(operation.index)) or len(factors_of(operation)) > 0


def _feeds_product(linearity: Linearity, value: Value) -> bool:
    users = linearity.users(value)
    return bool(users) and any(_is_product(linearity, user) for user in users)


def _is_product(linearity: Linearity, operation: Operation) -> bool:
    if operation.name.startswith("_scaled_dot_product"):
        return True
    factors = factors_of(operation)
    if operation.name == "mul":
        return any(u.name in ("sum", "mean") for u in linearity.users(operation.output))
    return len(factors) == 2 and not any(v in linearity.uses.weights for v in factors)


def _readout_fields(
    entries: list[tuple[str, nn.Module, str, nn.Parameter]],
    readouts: list[Use],
    linearity: Linearity,
) -> dict[str, Any]:
    """Where the factor of tied readouts can go."""
    if not readouts:
        return {}
    operations = [linearity.program.operations[use.order] for use in readouts]
    weights = linearity.uses.weights
    features = [v for one in operations for v in factors_of(one) if v not in weights]
    folds: tuple[FoldTarget, ...] = ()
    if features:
        fold = Folding(linearity).fold(tuple(dict.fromkeys(features)), *operations)
        folds = fold.targets if fold is not None and not fold.elsewhere else ()
    names = {name.rpartition(".")[0] for name, *_ in entries[1:]}
    (where, *others) = dict.fromkeys(use.where for use in readouts)
    module = where if where in names and not others else ""
    return {
        "readout": readouts[0], "readouts": tuple(readouts[1:]),
        "readout_folds": folds, "readout_module": module,
    }  # fmt: skip
