"""Parameters as the user writes them: a tensor, a sequence, a mapping, or held by a closure."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError

Parameters = Tensor | Iterable[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A distribution as a function of its parameters.

    Attributes:
        make: Makes the distribution anew, with the tensors below on its graph.
        tensors: The parameters, each requiring grad, in order.
        names: Their names.
        rebuild: From one value a parameter, the structure that the user gave.
    """

    make: Callable[[], Distribution]
    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    rebuild: Callable[[Sequence[Tensor]], Any]

    def coordinates(self) -> tuple[str, ...]:
        """Name of each entry of the flattened gradient."""
        return tuple(
            name + (f"[{','.join(map(str, index))}]" if index else "")
            for name, tensor in zip(self.names, self.tensors, strict=True)
            for index in product(*(range(size) for size in tensor.shape))
        )


def family(make_distribution: Callable[..., Distribution], params: Parameters) -> Family:
    """Bind parameters to the function that makes a distribution of them.

    A tensor is passed as the one argument, a sequence as positional arguments, a mapping by name
    (or whole, when the function takes one argument of another name). A function without arguments
    holds its parameters itself: they must require grad. Otherwise the parameters are copied, so
    that nothing of the caller's is touched.

    Raises:
        EstimatorError: No parameters, one that is not a floating point tensor, or one held by a
            closure that does not require grad.
    """
    names, values = _named(make_distribution, params)
    _check_tensors(names, values)
    closure = not inspect.signature(make_distribution).parameters
    if closure:
        _check_grad(names, values)
        tensors, make = values, make_distribution
    else:
        # those that require grad may be held by f too, and its part of the gradient is counted
        tensors = tuple(
            tensor if tensor.requires_grad else tensor.detach().clone().requires_grad_()
            for tensor in values
        )
        make = _caller(make_distribution, params, names, tensors)
    return Family(make=make, tensors=tensors, names=names, rebuild=_rebuilder(params, names))


def _caller(
    make_distribution: Callable[..., Distribution],
    params: Parameters,
    names: tuple[str, ...],
    tensors: tuple[Tensor, ...],
) -> Callable[[], Distribution]:
    arguments = inspect.signature(make_distribution).parameters
    named = dict(zip(names, tensors, strict=True))
    if isinstance(params, Mapping):
        if set(names) <= set(arguments):
            return lambda: make_distribution(**named)
        return lambda: make_distribution(named)
    variadic = any(a.kind is a.VAR_POSITIONAL for a in arguments.values())
    if len(arguments) < len(tensors) and not variadic:
        return lambda: make_distribution(tensors)
    return lambda: make_distribution(*tensors)


def _named(
    make_distribution: Callable[..., Distribution], params: Parameters
) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    if isinstance(params, Mapping):
        return tuple(str(name) for name in params), tuple(params.values())
    tensors = (params,) if isinstance(params, Tensor) else tuple(params)
    names = tuple(inspect.signature(make_distribution).parameters)
    if len(names) >= len(tensors):
        return names[: len(tensors)], tensors
    return tuple(f"θ{i}" for i in range(len(tensors))), tensors


def _rebuilder(params: Parameters, names: tuple[str, ...]) -> Callable[[Sequence[Tensor]], Any]:
    if isinstance(params, Tensor):
        return lambda values: values[0]
    if isinstance(params, Mapping):
        return lambda values: dict(zip(names, values, strict=True))
    return tuple


def _check_tensors(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> None:
    if not tensors:
        raise EstimatorError("params is empty: pass the tensors to differentiate by")
    for name, tensor in zip(names, tensors, strict=True):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise EstimatorError(
                f"parameter {name!r} is {kind}: a gradient needs a floating point tensor. "
                "Pass torch.tensor(1.0)"
            )


def _check_grad(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> None:
    without = [
        name for name, tensor in zip(names, tensors, strict=True) if not tensor.requires_grad
    ]
    if without:
        raise EstimatorError(
            f"parameter {', '.join(without)} does not require grad, and make_distribution takes no "
            "argument to pass a copy to. Call requires_grad_() on it, or let make_distribution "
            "take the parameters"
        )
