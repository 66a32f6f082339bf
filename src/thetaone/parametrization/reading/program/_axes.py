"""How operations that only move entries move the axes of a tensor."""

from collections.abc import Callable, Mapping
from typing import Any

from thetaone.parametrization.reading.program._program import Operation, Value

Axes = tuple[bool, ...]  # for each axis of a value, whether something varies along it

_SAME = frozenset(
    """clone alias detach slice _to_copy contiguous lift_fresh lift neg roll flip constant_pad_nd
    split split_with_sizes unsafe_split unsafe_split_with_sizes chunk narrow tril triu masked_fill
    native_dropout dropout real view_as_real index_select gather positive conj _conj
    upsample_nearest2d upsample_bilinear2d avg_pool2d _adaptive_avg_pool2d avg_pool1d avg_pool3d
    _adaptive_avg_pool3d convert_element_type zero_pad2d reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d slice_backward""".split()  # noqa: SIM905
)
_RESHAPES = frozenset(
    "view _unsafe_view reshape _reshape_alias squeeze unsqueeze flatten unflatten".split()  # noqa: SIM905
)
MOVES = _SAME | _RESHAPES | {
    "permute", "transpose", "t", "expand", "select", "unbind", "repeat", "index", "diagonal",
    "pixel_shuffle", "pixel_unshuffle", "unfold", "im2col", "swapaxes",
    "view_as_complex", "channel_shuffle", "as_strided",
}  # fmt: skip


def moved(operation: Operation, axes: Axes) -> Axes:
    """The axes of what an operation of ``MOVES`` makes of its first input.

    Args:
        operation: One of ``MOVES``.
        axes: Of its first input.

    Examples:
        >>> x = Value((2, 12), "activation")
        >>> y = Value((2, 3, 4), "activation")
        >>> split = Operation(0, "view", {"self": x}, (x,), (y,), "", id)
        >>> moved(split, (False, True))
        (False, True, True)
    """
    source, shape = operation.inputs[0], operation.output.shape
    rule = _RULES.get(operation.name)
    if rule is not None:
        axes = rule(operation.arguments, source, axes)
    elif operation.name in _RESHAPES:
        return _regrouped(source.shape, axes, shape)
    if len(axes) == len(shape):
        return axes
    return (any(axes),) * len(shape)


def broadcast(axes: Axes, shape: tuple[int, ...], to: tuple[int, ...]) -> Axes:
    """Axes of a value as those of what it is broadcast to.

    Examples:
        >>> broadcast((True,), (4,), (2, 4))
        (False, True)
    """
    lead = len(to) - len(shape)
    if lead < 0:
        return (any(axes),) * len(to)
    grown = (a and not (n == 1 and m > 1) for a, n, m in zip(axes, shape, to[lead:], strict=True))
    return (*(False,) * lead, *grown)


def _regrouped(old: tuple[int, ...], axes: Axes, new: tuple[int, ...]) -> Axes:
    """Axes after a reshape: those of the smallest groups of equal size on both sides."""
    result: list[bool] = []
    i = j = 0
    while j < len(new):
        ours, theirs, varies, first = 1, new[j], False, j
        j += 1
        while ours != theirs or (ours == 1 and i < len(old) and old[i] == 1 and new[j - 1] == 1):
            if ours < theirs or (ours == theirs == 1):
                if i >= len(old):
                    break
                ours, varies, i = ours * old[i], varies or axes[i], i + 1
                if ours == theirs == 1:
                    break
            elif j < len(new):
                theirs, j = theirs * new[j], j + 1
            else:
                break
        result += [varies and size > 1 for size in new[first:j]]
    return tuple(result)


def _permute(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    return tuple(axes[d] for d in arguments["dims"])


def _transpose(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    moved_axes = list(axes)
    a, b = (arguments[k] for k in ("dim0", "dim1"))
    moved_axes[a], moved_axes[b] = moved_axes[b], moved_axes[a]
    return tuple(moved_axes)


def _reverse(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    return axes[::-1]


def _expand(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    sizes = arguments["size"]
    lead = len(sizes) - len(axes)
    full = [n if n != -1 else source.shape[i - lead] for i, n in enumerate(sizes)]
    return broadcast(axes, source.shape, tuple(full))


def _dropped(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    dim = arguments["dim"] % len(axes)
    return axes[:dim] + axes[dim + 1 :]


def _repeated(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    return (*(False,) * (len(arguments["repeats"]) - len(axes)), *axes)


def _indexed(arguments: Mapping[str, Any], source: Value, axes: Axes) -> Axes:
    """Axes picked by index tensors become theirs, where the first of them stands."""
    picked = [i for i, index in enumerate(arguments["indices"]) if isinstance(index, Value)]
    count = max((len(arguments["indices"][i].shape) for i in picked), default=0)
    rest = [a for i, a in enumerate(axes) if i not in picked]
    place = picked[0] if picked and picked == list(range(picked[0], picked[-1] + 1)) else 0
    varies = any(axes[i] for i in picked)
    return (*rest[:place], *(varies,) * count, *rest[place:])


_RULES: Mapping[str, Callable[[Mapping[str, Any], Value, Axes], Axes]] = {
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "t": _reverse,
    "expand": _expand,
    "select": _dropped,
    "unbind": _dropped,
    "repeat": _repeated,
    "index": _indexed,
}
