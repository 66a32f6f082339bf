"""∇ of a density as a difference of two densities: ∂p/∂θ = c (p₊ − p₋), for one coordinate.

Pairs are coupled (drawn from shared noise), which leaves each law alone and lowers the variance of
the difference. Source: Mohamed et al. 2020, arXiv 1906.10652, table 1 and §7.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution

from thetaone.estimators.distributions._sampling import drawing_from, uniform


@dataclass(frozen=True)
class WeakDerivative:
    """One parameter's decomposition.

    Attributes:
        parameter: The tensor θ, ``[*batch_shape]``, on its graph.
        constant: c, broadcastable to it.
        above: Samples of p₊, ``[n, *batch_shape]``.
        below: Samples of p₋, ``[n, *batch_shape]``.
    """

    parameter: Tensor
    constant: Tensor
    above: Tensor
    below: Tensor


Draw = Callable[[Any, int, torch.Generator | None], WeakDerivative]


def _normal_loc(p: D.Normal, n: int, generator: torch.Generator | None) -> WeakDerivative:
    """µ ± σW with W Rayleigh; c = 1/(σ√2π)."""
    step = p.scale * (-2 * uniform(p.loc, n, generator).log()).sqrt()
    return WeakDerivative(p.loc, 1 / (p.scale * sqrt(2 * pi)), p.loc + step, p.loc - step)


def _normal_scale(p: D.Normal, n: int, generator: torch.Generator | None) -> WeakDerivative:
    """p₊ double-sided Maxwell, p₋ the Normal itself as Maxwell times uniform; c = 1/σ."""
    with drawing_from(generator):
        three = torch.randn((3, n, *p.loc.shape), dtype=p.loc.dtype, device=p.loc.device)
    maxwell = three.norm(dim=0) * torch.where(uniform(p.loc, n, generator) < 0.5, -1.0, 1.0)
    u = uniform(p.loc, n, generator)
    return WeakDerivative(
        p.scale, 1 / p.scale, p.loc + p.scale * maxwell, p.loc + p.scale * maxwell * u
    )


def _bernoulli(p: D.Bernoulli, n: int, generator: torch.Generator | None) -> WeakDerivative:
    """f(1) − f(0); c = 1."""
    one = torch.ones((n, *p.probs.shape), dtype=p.probs.dtype, device=p.probs.device)
    return WeakDerivative(p.probs, torch.ones_like(p.probs), one, torch.zeros_like(one))


def _poisson(p: D.Poisson, n: int, generator: torch.Generator | None) -> WeakDerivative:
    """f(x + 1) − f(x), x from the Poisson itself; c = 1."""
    with drawing_from(generator):
        x = p.sample(torch.Size((n,)))
    return WeakDerivative(p.rate, torch.ones_like(p.rate), x + 1, x)


def _exponential(p: D.Exponential, n: int, generator: torch.Generator | None) -> WeakDerivative:
    """p₊ the Exponential itself, p₋ Gamma(2, λ) as the sum of two; c = 1/λ."""
    with drawing_from(generator):
        x, more = p.sample(torch.Size((2, n)))
    return WeakDerivative(p.rate, 1 / p.rate, x, x + more)


def _gamma_rate(p: D.Gamma, n: int, generator: torch.Generator | None) -> WeakDerivative:
    """p₊ Gamma(α, β), p₋ Gamma(α + 1, β) as its sum with an Exponential(β); c = α/β."""
    with drawing_from(generator):
        x = p.sample(torch.Size((n,)))
        more = D.Exponential(p.rate).sample(torch.Size((n,)))
    return WeakDerivative(p.rate, p.concentration / p.rate, x, x + more)


KNOWN: dict[type[Distribution], dict[str, Draw]] = {
    D.Normal: {"loc": _normal_loc, "scale": _normal_scale},
    D.Bernoulli: {"probs": _bernoulli},
    D.Poisson: {"rate": _poisson},
    D.Exponential: {"rate": _exponential},
    D.Gamma: {"rate": _gamma_rate},
}
