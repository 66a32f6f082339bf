"""Entries followed through operations that move them: which row of a parameter a feature is."""

from collections.abc import Mapping
from typing import Any

import torch

from thetaone.parametrization.reading.program import MOVES, Operation, Uses, Value, kept_axes
from thetaone.records import LOOKUP, Span

_COPIES = ("clone", "alias", "detach", "_to_copy", "contiguous", "native_dropout", "dropout", "neg")
_NUMBER = torch.float64  # exact for integers, and a pair of it is a complex number

Numbers = torch.Tensor | None


def feature_numbers(value: Value, maker: Operation) -> Numbers:
    """Of each entry of a value, which output feature of ``maker`` it is; ``None``: unknown."""
    axis = 1 if maker.name == "convolution" else -1
    return _followed(value, {id(maker.output): _numbered(maker.output, axis)})


def leaf_rows(uses: Uses, leaf: Value, operation: Operation) -> tuple[int, list[int]] | None:
    """The rows of a parameter that make the output features of an operation.

    Returns:
        The axis along which the rows lie, and the row of each feature; ``None`` where unknown.
    """
    held = next(v for v in operation.inputs if leaf.name in uses.weights.get(v, {}))
    kept = kept_axes(operation, held)
    kinds = {use.kind for use in uses.by_operation.get(operation.index, [])}
    if not kept:  # a row of a table, or one entry a feature
        long = [axis for axis, size in enumerate(held.shape) if size > 1] or [0]
        kept = (long[-1],) if LOOKUP in kinds or len(long) == 1 else ()
    if len(kept) != 1:
        return None
    for axis in range(len(leaf.shape)):
        numbers = _followed(held, {id(leaf): _numbered(leaf, axis)})
        if numbers is None:
            return None
        count = held.shape[kept[0]]
        by_feature = _shortened(numbers, but=kept[0]).movedim(kept[0], 0).reshape(count, -1)
        first, alike = by_feature[:, 0], bool((by_feature == by_feature[:, :1]).all())
        if alike and (count == 1 or first[0] != first[-1]):
            return axis, [int(number) for number in first.tolist()]
    return None


def _numbered(value: Value, axis: int) -> torch.Tensor:
    shape = [1] * len(value.shape)
    shape[axis] = value.shape[axis]
    return torch.arange(value.shape[axis], dtype=_NUMBER).reshape(shape).expand(value.shape)


def _followed(value: Value, numbers: dict[int, Numbers]) -> Numbers:
    if id(value) not in numbers:
        numbers[id(value)] = None
        numbers[id(value)] = _after(value, numbers)
    return numbers[id(value)]


def _after(value: Value, numbers: dict[int, Numbers]) -> Numbers:
    operation = value.source
    if operation is None:
        return None
    inputs = [_followed(source, numbers) for source in operation.inputs]
    present = [one for one in inputs if one is not None]
    if not present:
        return None
    if operation.name in MOVES:
        return _replayed(operation, value, present[0]) if inputs[0] is not None else None
    if operation.name == "cat":
        whole = len(present) == len(inputs)
        return torch.cat(present, operation.arguments.get("dim", 0)) if whole else None
    if operation.name in ("add", "sub", "mul", "div") and present[0].shape == value.shape:
        if len(present) > 1 and row_set(present[0]) != row_set(present[1]):
            return None
        return present[0]
    return None


def _replayed(operation: Operation, value: Value, numbers: torch.Tensor) -> Numbers:
    """An operation that moves entries, done to their numbers."""
    if operation.name in _COPIES:
        return numbers
    if operation.name in ("view", "_unsafe_view", "reshape"):
        return numbers.reshape(value.shape)
    if operation.name in ("view_as_complex", "view_as_real"):
        numbers = numbers.contiguous()
    known = {value: value.constant for value in operation.inputs} | {operation.inputs[0]: numbers}
    if operation.call is None or any(tensor is None for tensor in known.values()):
        return None
    result = operation.call(**_filled(operation.arguments, known))
    return result if isinstance(result, torch.Tensor) else result[operation.outputs.index(value)]


def _filled(entry: Any, known: Mapping[Value, Numbers]) -> Any:
    """Arguments with tensors for values."""
    if isinstance(entry, Value):
        return known[entry]
    if isinstance(entry, (list, tuple)):
        return [_filled(one, known) for one in entry]
    return {k: _filled(v, known) for k, v in entry.items()} if isinstance(entry, dict) else entry


def _shortened(numbers: torch.Tensor, but: int | None = None) -> torch.Tensor:
    """Without the copies along axes of stride 0."""
    for axis in range(numbers.dim()):
        if axis != but and numbers.stride(axis) == 0 and numbers.shape[axis] > 0:
            numbers = numbers.narrow(axis, 0, 1)
    return numbers


def row_set(numbers: Numbers) -> frozenset[int] | None:
    """The numbers that occur."""
    if numbers is None:
        return None
    numbers = _shortened(numbers)
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers)
    return frozenset(int(number) for number in numbers.unique().tolist())


def spans_of(rows: list[int]) -> tuple[Span, ...]:
    """Sorted rows as spans."""
    firsts = [row for i, row in enumerate(rows) if i == 0 or rows[i - 1] != row - 1]
    lasts = [row for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1] != row + 1]
    return tuple(Span(start=a, stop=b + 1) for a, b in zip(firsts, lasts, strict=True))
