"""RELAX: the score function with a learnt control variate."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from thetaone.estimators._integrand import Integrand
from thetaone.estimators.distributions import trainable
from thetaone.estimators.methods._relaxed_control import Noise, RelaxedControl, controlled_rows


class RELAX(RelaxedControl):
    """ĝ = [f(b) − c_φ(z̃)] ∇log p(b) + ∇c_φ(z) − ∇c_φ(z̃), c_φ a network.

    Unbiased for any c_φ (see ``relaxed_control``). φ descends on E[ĝ²], whose gradient comes from
    the same draws; the step is taken at the *next* use, so that c_φ never depends on the sample it
    is applied to. f may be a black box. Costs 1 evaluation of f and 2 of c_φ a sample.

    Args:
        control: c_φ: takes z with coordinates flattened, ``[n, *lead, C]``, returns
            ``[n, *lead, 1]``. ``None`` for 10 tanh units, made at first use.
        lr: Adam's learning rate for φ; 0 leaves φ alone.

    Source: Grathwohl et al. 2018, arXiv 1711.00123, eq. 8 and algorithm 1.

    Examples:
        >>> RELAX(lr=0.01).name
        'RELAX'
    """

    def __init__(self, control: nn.Module | None = None, *, lr: float = 1e-2) -> None:
        self.control = control
        self.lr = lr
        self._optimizer: torch.optim.Optimizer | None = None

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Noise) -> Tensor:
        """See ``controlled_rows``; then the gradient of E[ĝ²] for the step at the next use."""
        self._step()
        weights: dict[str, Tensor] = {}

        def control(z: Tensor, n_lead: int) -> Tensor:
            flat = z.flatten(1 + n_lead) if z.dim() > 1 + n_lead else z[..., None]
            if self.control is None:
                self.control = default_control(flat)
            if not weights:  # copies: a step must not touch what a pending backward needs
                weights.update(_copies(self.control))
            return functional_call(self.control, weights, (flat,)).squeeze(-1)

        rows = controlled_rows(f, distribution, draws, control)
        if self.lr > 0 and rows.requires_grad:
            self._observe(rows, distribution, weights)
        return rows

    def _observe(
        self, rows: Tensor, distribution: Distribution, weights: dict[str, Tensor]
    ) -> None:
        """Leave ∂φ E[ĝ²] in the gradients of the control's parameters."""
        gradients = torch.autograd.grad(
            rows.mean(0).sum(), trainable(distribution), create_graph=True, allow_unused=True
        )
        present = [gradient for gradient in gradients if gradient is not None]
        if not any(gradient.requires_grad for gradient in present):
            return
        loss = torch.stack([(gradient**2).sum() for gradient in present]).sum()
        for_weights = torch.autograd.grad(
            loss, list(weights.values()), retain_graph=True, allow_unused=True
        )
        for parameter, gradient in zip(
            cast(nn.Module, self.control).parameters(), for_weights, strict=True
        ):
            parameter.grad = gradient

    def _step(self) -> None:
        if self.control is None or self.lr == 0:
            return
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self.control.parameters(), lr=self.lr)
        self._optimizer.step()
        self._optimizer.zero_grad()


def default_control(flat: Tensor) -> nn.Module:
    """10 tanh units on C inputs, starting at 0; takes nothing from the global RNG."""
    generator = torch.Generator(flat.device).manual_seed(0)
    make: Callable[..., Any] = nn.utils.skip_init
    hidden, out = make(nn.Linear, flat.shape[-1], 10), make(nn.Linear, 10, 1)
    with torch.no_grad():
        hidden.weight.normal_(0, flat.shape[-1] ** -0.5, generator=generator)
        for parameter in (hidden.bias, out.weight, out.bias):
            parameter.zero_()
    return nn.Sequential(hidden, nn.Tanh(), out).to(device=flat.device, dtype=flat.dtype)


def _copies(module: nn.Module) -> dict[str, Tensor]:
    named = module.named_parameters()
    return {name: value.detach().clone().requires_grad_() for name, value in named}
