"""Expectations whose gradient is known in closed form: the truth that estimators are judged by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, exp, pi, sin
from typing import Any

import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution


@dataclass(frozen=True)
class Problem:
    """∇θ E_{x∼pθ} f(x) with its exact value.

    Attributes:
        name: What it is called.
        make: Makes the distribution of the parameters, by name.
        params: Where the gradient is taken.
        f: The integrand, vectorised.
        gradient: The exact gradient of each parameter.
        continuous: Whether f has no jump.
        objective: What is differentiated; ``E f`` but for multi-sample bounds.

    Examples:
        >>> problem = quadratic(d=2)
        >>> problem.truth.tolist()
        [1.0, 1.0, 2.0, 2.0]
    """

    name: str
    make: Callable[..., Distribution]
    params: dict[str, Tensor]
    f: Callable[[Tensor], Any]
    gradient: dict[str, Tensor]
    continuous: bool = True
    objective: str = field(default="E f")

    @property
    def truth(self) -> Tensor:
        """The gradient flattened and joined, in the order of ``params``."""
        return torch.cat([self.gradient[name].reshape(-1) for name in self.params])


def float64(*values: float) -> Tensor:
    """A tensor of them; a scalar for one."""
    data = values[0] if len(values) == 1 else values
    return torch.tensor(data, dtype=torch.float64)


def _normal(loc: Tensor, scale: Tensor) -> Distribution:
    return D.Independent(D.Normal(loc, scale), 1) if loc.dim() else D.Normal(loc, scale)


def quadratic(d: int = 2, *, mu: float = 0.5, sigma: float = 1.0) -> Problem:
    """Of f = ‖x‖², N(µ, σ²I): 2µ and 2σ for each coordinate.

    Examples:
        >>> quadratic(d=1, mu=0.5, sigma=1.0).truth.tolist()
        [1.0, 2.0]
    """
    loc, scale = torch.full((d,), mu).double(), torch.full((d,), sigma).double()
    return Problem(
        name=f"quadratic-{d}",
        make=_normal,
        params={"loc": loc, "scale": scale},
        f=lambda x: (x**2).sum(-1),
        gradient={"loc": 2 * loc, "scale": 2 * scale},
    )


def quadratic_location(d: int = 2, *, mu: float = 0.5, sigma: float = 1.0) -> Problem:
    """As ``quadratic``, with σ known: what evolution strategies apply to.

    Examples:
        >>> quadratic_location(d=1, mu=0.5).truth.tolist()
        [1.0]
    """
    loc = torch.full((d,), mu).double()
    return Problem(
        name=f"quadratic-location-{d}",
        make=lambda loc: _normal(loc, torch.full_like(loc, sigma)),
        params={"loc": loc},
        f=lambda x: (x**2).sum(-1),
        gradient={"loc": 2 * loc},
    )


def cosine(d: int = 3, *, mu: float = 0.3, sigma: float = 0.5) -> Problem:
    """Of f = cos Σx: E f = cos(Σµ) exp(−½Σσ²).

    Examples:
        >>> [round(entry, 3) for entry in cosine(d=1, mu=0.0).truth.tolist()]
        [-0.0, -0.441]
    """
    loc, scale = torch.full((d,), mu).double(), torch.full((d,), sigma).double()
    damp = exp(-d * sigma**2 / 2)
    return Problem(
        name="cos",
        make=_normal,
        params={"loc": loc, "scale": scale},
        f=lambda x: x.sum(-1).cos(),
        gradient={
            "loc": torch.full_like(loc, -sin(d * mu) * damp),
            "scale": torch.full_like(loc, -sigma * cos(d * mu) * damp),
        },
    )


def exponential_of_sum(d: int = 3, *, mu: float = 0.3, sigma: float = 0.5) -> Problem:
    """Of f = exp Σx: E f = exp(Σµ + ½Σσ²).

    Examples:
        >>> [round(entry, 3) for entry in exponential_of_sum(d=1, mu=0.0, sigma=1.0).truth.tolist()]
        [1.649, 1.649]
    """
    loc, scale = torch.full((d,), mu).double(), torch.full((d,), sigma).double()
    value = exp(d * mu + d * sigma**2 / 2)
    return Problem(
        name="exp",
        make=_normal,
        params={"loc": loc, "scale": scale},
        f=lambda x: x.sum(-1).exp(),
        gradient={
            "loc": torch.full_like(loc, value),
            "scale": torch.full_like(loc, sigma * value),
        },
    )


def tucker(theta: float = 0.0, *, t: float = 0.499, d: int = 1) -> Problem:
    """Σ_j (b_j − t)², b ~ Bernoulli(σ(θ)): p(1 − p)(1 − 2t) for each coordinate.

    Source: Tucker et al. 2017, arXiv 1703.07370, §4; Grathwohl et al. 2018 with t = 0.499.

    Examples:
        >>> [round(entry, 3) for entry in tucker(0.0, t=0.25).truth.tolist()]
        [0.125]
    """
    logits = torch.full((d,), theta).double()
    p = logits.sigmoid()
    return Problem(
        name=f"tucker(θ={theta:g}, t={t:g})",
        make=lambda logits: D.Bernoulli(logits=logits),
        params={"logits": logits},
        f=lambda b: ((b - t) ** 2).sum(-1),
        gradient={"logits": p * (1 - p) * (1 - 2 * t)},
    )


def step(mu: float = 0.3) -> Problem:
    """Of f = 1[x > 0] on N(µ, 1): φ(µ). A jump, and nothing else: f is cut off from the graph."""
    return Problem(
        name="step",
        make=lambda loc: D.Normal(loc, torch.ones((), dtype=torch.float64)),
        params={"loc": float64(mu)},
        f=lambda x: (x > 0).double(),
        gradient={"loc": float64(exp(-(mu**2) / 2) / (2 * pi) ** 0.5)},
        continuous=False,
    )


def jump(mu: float = 0.3) -> Problem:
    """Of f = x² + 10·1[x > 1] on N(µ, 1): 2µ + 10φ(1 − µ). The jump hides behind a smooth term.

    Examples:
        >>> [round(entry, 3) for entry in jump(0.0).truth.tolist()]
        [2.42]
    """
    density = exp(-((1 - mu) ** 2) / 2) / (2 * pi) ** 0.5
    return Problem(
        name="jump",
        make=lambda loc: D.Normal(loc, torch.ones((), dtype=torch.float64)),
        params={"loc": float64(mu)},
        f=lambda x: x**2 + 10 * (x > 1).double(),
        gradient={"loc": float64(2 * mu + 10 * density)},
        continuous=False,
    )
