"""The pathwise estimator: reparameterization, explicit (rsample) or implicit (through the cdf)."""

from collections import deque
from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategoricalStraightThrough

from thetaone.errors import EstimatorError
from thetaone.estimators._first_order_only import once_only
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators._user_warning import warn_user
from thetaone.estimators.distributions import (
    HostChecks,
    dead_path,
    describe,
    discrete,
    elementary,
    has_implicit,
    implicit_sample,
    node_of,
    rsample,
    sample,
    trainable,
)


class Pathwise(Estimator):
    """ĝ = (1/S) Σ_i (∂x_i/∂θ)ᵀ ∇f(x_i), x = g(z, θ).

    Unbiased when f is continuous and differentiable almost everywhere: a jump of f is silently
    missed (``compare_estimators`` finds it). Costs 1 evaluation of f and one backward pass through
    f. Distributions without ``rsample`` but with a cdf (mixtures of the same family among them) are
    reparameterized implicitly (see ``implicit.py``), first derivatives only.

    Source: Kingma & Welling 2013, arXiv 1312.6114; Figurnov et al. 2018, arXiv 1805.08498;
    Mohamed et al. 2020, arXiv 1906.10652, §5.

    Examples:
        >>> from torch.distributions import Poisson
        >>> print(Pathwise().refusal(Poisson(torch.tensor(2.0)))[:50])
        Poisson(batch (), event ()) is discrete: no path l
    """

    higher_order: ClassVar[bool] = True
    differentiates: bool = True

    def refusal(self, distribution: Distribution) -> str:
        """Refuse what is discrete, straight-through, or without rsample and cdf."""
        why = _no_path(distribution)
        return why and why.format(describe(distribution))

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Samples on the graph, or plain ones for the implicit form."""
        if distribution.has_rsample:
            return rsample(distribution, n_samples, generator)
        return sample(distribution, n_samples, generator)

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        """f(x), x on the graph."""
        explicit = distribution.has_rsample
        x = draws if explicit else implicit_sample(distribution, draws)
        values = f(x)
        refuse_cut(values, x)
        watch_derivative(values, x, f.checks)
        tensors = trainable(distribution)
        if not explicit:
            return once_only(values, tensors, "Pathwise by implicit reparameterization")
        if differentiable_once(x, tensors):
            return once_only(values, tensors, f"Pathwise of {describe(distribution)}")
        return values


def _no_path(distribution: Distribution) -> str:
    """Why there is no path, with a place for the distribution's name; empty when there is one."""
    if isinstance(elementary(distribution), OneHotCategoricalStraightThrough):
        return "{} has a biased rsample; use StraightThrough(), which says so"
    if discrete(distribution):
        return (
            "{} is discrete: no path leads from its parameters to a sample. Use LeaveOneOut(), or "
            "DisARM() for Bernoulli"
        )
    if distribution.has_rsample:
        dead = dead_path(distribution)
        return dead and (
            f"no path leads from {dead} of {{}} to a sample, though its law depends on it: the "
            "gradient would be silently 0; use LeaveOneOut()"
        )
    if has_implicit(distribution):
        return ""
    return "{} has neither rsample nor a cdf that torch knows; use LeaveOneOut()"


def refuse_cut(values: Tensor, x: Tensor) -> None:
    """Raise when no path of the graph leads from f's values back to the sample.

    Raises:
        EstimatorError: f is cut off, wholly: a pathwise gradient would be silently zero.
    """
    if not (x.requires_grad and torch.is_grad_enabled()) or reaches(values, x):
        return
    raise EstimatorError(
        "f is cut off from the graph: nothing leads from its values back to the sample, so a "
        "pathwise gradient would be zero or fail. Remove .detach(), .item(), numpy and comparisons "
        "from f, or use LeaveOneOut(), which needs no gradient of f"
    )


def watch_derivative(values: Tensor, x: Tensor, checks: HostChecks) -> None:
    """Have a warning given when ∂f/∂x is NaN or infinite though f is finite.

    In the backward pass on a CPU; elsewhere with the next call's checks, so that the host need not
    wait for the device. Not an error: under loss scaling an overflow is expected, and the scaler
    skips that step.
    """
    while _UNREAD:
        checks.add(_UNREAD.pop(), _say_if_spoiled)
    if not (x.requires_grad and values.requires_grad and torch.is_grad_enabled()):
        return
    incoming: list[Tensor] = []

    def note(gradient: Tensor) -> None:
        incoming[:] = [_total(gradient)]

    def look(gradient: Tensor) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(gradient):  # pyright: ignore[reportAttributeAccessIssue]
            return  # its numbers are not at hand
        sums = (*incoming, _total(gradient))
        if gradient.device.type == "cpu":
            _say_if_spoiled([float(one.numpy()) for one in sums])
        else:
            _UNREAD.append(sums)

    values.register_hook(note)
    x.register_hook(look)


_UNREAD: deque[tuple[Tensor, ...]] = deque(maxlen=4)  # sums on a device, of backward passes gone by


def _total(gradient: Tensor) -> Tensor:
    detached = gradient.detach()
    return detached.sum(dtype=torch.float64 if detached.dtype == torch.float64 else torch.float32)


def _say_if_spoiled(sums: Sequence[float]) -> None:
    *incoming, gradient = sums
    if isfinite(gradient) or not all(map(isfinite, incoming)):
        return
    warn_user(
        "the derivative of f is NaN or infinite at some sample, though f is finite, and spoils the "
        "whole gradient. where() keeps the NaN of the branch that it does not take: make the "
        "argument safe inside it (x.clamp(min=...)), or use LeaveOneOut(), which takes no "
        "derivative of f"
    )


def differentiable_once(x: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether torch knows the first derivative of a sample's path only.

    A backward marked once-differentiable (the Dirichlet's) is silently a constant to a second
    derivative; that of the Gamma's has none.
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return False
    seen: set[Any] = {None, *(node_of(tensor) for tensor in tensors)}
    stack: list[Any] = [x.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        backward = getattr(getattr(type(node), "_forward_cls", None), "backward", None)
        if hasattr(backward, "__wrapped__") or node.name().startswith("StandardGamma"):
            return True
        stack += [step for step, _ in node.next_functions]
    return False


def reaches(values: Tensor, x: Tensor) -> bool:
    """Whether the graph leads from values back to x, or they are x itself, as of f(x) = x."""
    if values is x:
        return True
    target = x.grad_fn or node_of(x)
    seen: set[Any] = {None}
    stack: list[Any] = [values.grad_fn]
    while stack:
        node = stack.pop()
        if node is target:
            return True
        if node not in seen:
            seen.add(node)
            stack += [step for step, _ in node.next_functions]
    return False
