"""Rows of a fused projection: which of its output features some values are."""

import torch

from thetaone.parametrization.reading.program._axes import MOVES, moved
from thetaone.parametrization.reading.program._parts import Uses
from thetaone.parametrization.reading.program._program import Operation, Value
from thetaone.records import Span

_COPIES = ("clone", "alias", "detach", "_to_copy", "contiguous", "native_dropout", "dropout", "neg")


def feature_index(
    value: Value, maker: Operation, memo: dict[int, torch.Tensor | None]
) -> torch.Tensor | None:
    """For each entry of a value, which output feature of ``maker`` it is."""
    if id(value) in memo:
        return memo[id(value)]
    memo[id(value)] = None
    memo[id(value)] = _new_index(value, maker, memo)
    return memo[id(value)]


def _new_index(
    value: Value, maker: Operation, memo: dict[int, torch.Tensor | None]
) -> torch.Tensor | None:
    operation = value.source
    if operation is None:
        return None
    if operation is maker:
        axis = 1 if maker.name == "convolution" else -1
        shape = [1] * len(value.shape)
        shape[axis] = value.shape[axis]
        return torch.arange(value.shape[axis]).reshape(shape).expand(value.shape)
    known = [feature_index(source, maker, memo) for source in operation.inputs]
    indices = [index for index in known if index is not None]
    if not indices:
        return None
    if operation.name in MOVES:
        return _replayed(operation, value, indices[0]) if known[0] is not None else None
    if operation.name == "cat":
        whole = len(indices) == len(known)
        return torch.cat(indices, operation.arguments.get("dim", 0)) if whole else None
    if operation.name in ("add", "sub", "mul", "div") and indices[0].shape == value.shape:
        if len(indices) > 1 and row_set(indices[0]) != row_set(indices[1]):
            return None
        return indices[0]
    return None


def _replayed(operation: Operation, value: Value, index: torch.Tensor) -> torch.Tensor | None:
    """An operation that moves entries, done to their numbers."""
    if operation.name in _COPIES:
        return index
    if operation.name in ("view", "_unsafe_view", "reshape"):
        return index.reshape(value.shape)
    source = operation.inputs[0]
    arguments = {k: index if a is source else a for k, a in operation.arguments.items()}
    if operation.call is None or any(isinstance(a, Value) for a in arguments.values()):
        return None
    result = operation.call(**arguments)
    return result if isinstance(result, torch.Tensor) else result[operation.outputs.index(value)]


def row_set(index: torch.Tensor | None) -> frozenset[int] | None:
    if index is None:
        return None
    for axis in range(index.dim()):
        if index.stride(axis) == 0 and index.shape[axis] > 0:
            index = index.narrow(axis, 0, 1)
    return frozenset(index.unique().tolist())


def axis_of_rows(uses: Uses, leaf: Value, maker: Operation, size: int) -> int:
    """The axis of a matrix along which its output features lie."""
    axes = [axis for axis, n in enumerate(leaf.shape) if n == size]
    if len(axes) == 1:
        return axes[0]
    held = next(v for v in maker.inputs if v in uses.weights and leaf.name in uses.weights[v])
    transposed, value = False, held
    while value.source is not None:
        probe = moved(value.source, (True, False)) if value.source.name in MOVES else (True, False)
        transposed ^= probe == (False, True)
        value = value.source.inputs[0]
    rows_last = maker.name not in ("linear", "convolution")
    return int(rows_last != transposed)


def spans_of(rows: list[int]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for row in rows:
        if spans and spans[-1].stop == row:
            spans[-1] = Span(start=spans[-1].start, stop=row + 1)
        else:
            spans.append(Span(start=row, stop=row + 1))
    return tuple(spans)
