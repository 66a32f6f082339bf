"""Expectations whose gradient is known in closed form: the truth that estimators are judged by."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb, cos, exp, log, pi, sin
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


def _t(*values: float) -> Tensor:
    data = values[0] if len(values) == 1 else values
    return torch.tensor(data, dtype=torch.float64)


def _normal(loc: Tensor, scale: Tensor) -> Distribution:
    return D.Independent(D.Normal(loc, scale), 1) if loc.dim() else D.Normal(loc, scale)


def quadratic(d: int = 2, *, mu: float = 0.5, sigma: float = 1.0) -> Problem:
    """Of f = ‖x‖², N(µ, σ²I): 2µ and 2σ for each coordinate."""
    loc, scale = torch.full((d,), mu).double(), torch.full((d,), sigma).double()
    return Problem(
        name=f"quadratic-{d}",
        make=_normal,
        params={"loc": loc, "scale": scale},
        f=lambda x: (x**2).sum(-1),
        gradient={"loc": 2 * loc, "scale": 2 * scale},
    )


def quadratic_location(d: int = 2, *, mu: float = 0.5, sigma: float = 1.0) -> Problem:
    """As ``quadratic``, with σ known: what evolution strategies apply to."""
    loc = torch.full((d,), mu).double()
    return Problem(
        name=f"quadratic-location-{d}",
        make=lambda loc: _normal(loc, torch.full((d,), sigma).double()),
        params={"loc": loc},
        f=lambda x: (x**2).sum(-1),
        gradient={"loc": 2 * loc},
    )


def cosine(d: int = 3, *, mu: float = 0.3, sigma: float = 0.5) -> Problem:
    """Of f = cos Σx: E f = cos(Σµ) exp(−½Σσ²)."""
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
    """Of f = exp Σx: E f = exp(Σµ + ½Σσ²)."""
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
        params={"loc": _t(mu)},
        f=lambda x: (x > 0).double(),
        gradient={"loc": _t(exp(-(mu**2) / 2) / (2 * pi) ** 0.5)},
        continuous=False,
    )


def jump(mu: float = 0.3) -> Problem:
    """Of f = x² + 10·1[x > 1] on N(µ, 1): 2µ + 10φ(1 − µ). The jump hides behind a smooth term."""
    density = exp(-((1 - mu) ** 2) / 2) / (2 * pi) ** 0.5
    return Problem(
        name="jump",
        make=lambda loc: D.Normal(loc, torch.ones((), dtype=torch.float64)),
        params={"loc": _t(mu)},
        f=lambda x: x**2 + 10 * (x > 1).double(),
        gradient={"loc": _t(2 * mu + 10 * density)},
        continuous=False,
    )


def _bernoulli_joint() -> Problem:
    """Of f = (b₁ + 2b₂ − ½)² + b₁b₂, by probs: f(b) = ¼ + 2b₂ + 5b₁b₂ on {0, 1}²."""
    p = _t(0.7, 0.4)
    return Problem(
        name="bernoulli-joint",
        make=lambda probs: D.Independent(D.Bernoulli(probs), 1),
        params={"probs": p},
        f=lambda b: (b[:, 0] + 2 * b[:, 1] - 0.5) ** 2 + b[:, 0] * b[:, 1],
        gradient={"probs": torch.stack([5 * p[1], 2 + 5 * p[0]])},
    )


def _categorical(*, one_hot: bool) -> Problem:
    """Of f_k = 1, 2, 4: p_k (f_k − F)."""
    logits, table = _t(1.0, -0.5, 0.2), _t(1.0, 2.0, 4.0)
    p = logits.softmax(0)
    kind = D.OneHotCategorical if one_hot else D.Categorical
    return Problem(
        name="one-hot" if one_hot else "categorical",
        make=lambda logits: kind(logits=logits),
        params={"logits": logits},
        f=(lambda x: x @ table) if one_hot else (lambda k: table[k]),
        gradient={"logits": p * (table - (p * table).sum())},
    )


def _mixture() -> Problem:
    """Of f = x², Σ_k w_k (µ_k² + 1): 2w_kµ_k by loc; w_k(m_k − M) by logits of the weights."""
    logits, loc = _t(0.3, -0.2), _t(-1.0, 2.0)
    w, second = logits.softmax(0), loc**2 + 1
    return Problem(
        name="mixture",
        make=lambda loc, logits: D.MixtureSameFamily(
            D.Categorical(logits=logits), D.Normal(loc, torch.ones_like(loc))
        ),
        params={"loc": loc, "logits": logits},
        f=lambda x: x**2,
        gradient={"loc": 2 * w * loc, "logits": w * (second - (w * second).sum())},
    )


def _multivariate() -> Problem:
    """Of f = ‖x‖²: 2µ and 2L (lower triangle)."""
    loc, tril = _t(0.5, -1.0), torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64)
    return Problem(
        name="multivariate-normal",
        make=lambda loc, tril: D.MultivariateNormal(loc, scale_tril=tril.tril()),
        params={"loc": loc, "tril": tril},
        f=lambda x: (x**2).sum(-1),
        gradient={"loc": 2 * loc, "tril": 2 * tril},
    )


def _lognormal() -> Problem:
    """Of f = x: exp(µ + σ²/2), a TransformedDistribution."""
    value = exp(0.2 + 0.125)
    return Problem(
        name="lognormal",
        make=D.LogNormal,
        params={"loc": _t(0.2), "scale": _t(0.5)},
        f=lambda x: x,
        gradient={"loc": _t(value), "scale": _t(0.5 * value)},
    )


def _uniform() -> Problem:
    """Of f = x² on U(0, θ): θ²/3, a support that moves."""
    return Problem(
        name="uniform",
        make=lambda high: D.Uniform(torch.zeros_like(high), high),
        params={"high": _t(1.5)},
        f=lambda x: x**2,
        gradient={"high": _t(1.0)},
    )


def _scalar(
    name: str,
    make: Callable[..., Distribution],
    f: Callable[[Tensor], Tensor],
    **where: tuple[float, float],
) -> Problem:
    """One or more scalar parameters, each (value, gradient)."""
    return Problem(
        name=name,
        make=make,
        params={key: _t(value) for key, (value, _) in where.items()},
        f=f,
        gradient={key: _t(slope) for key, (_, slope) in where.items()},
    )


def multi_sample_bound(particles: int = 4, *, theta: float = 0.3) -> Problem:
    """E log (1/K)Σ exp f(b_i), f = 0 or 1.2: a binomial sum over how many of K are 1."""
    p, k, gain = 1 / (1 + exp(-theta)), particles, 1.2
    slope = 0.0
    for ones in range(k + 1):
        bound = log((ones * exp(gain) + k - ones) / k)
        probability = comb(k, ones) * p**ones * (1 - p) ** (k - ones)
        slope += bound * probability * (ones - k * p)
    return Problem(
        name=f"bound-{k}",
        make=lambda logits: D.Bernoulli(logits=logits),
        params={"logits": _t(theta)},
        f=lambda b: gain * b,
        gradient={"logits": _t(slope)},
        objective="E log mean exp f",
    )


def problems() -> list[Problem]:
    """Every problem of the conformance suite."""
    return [
        quadratic(2),
        quadratic_location(2, mu=1.0, sigma=0.7),
        cosine(2, mu=0.4, sigma=0.6),
        exponential_of_sum(2, mu=0.2, sigma=0.5),
        tucker(0.5, t=0.2),
        tucker(-1.0, t=0.8, d=2),
        step(),
        jump(),
        _bernoulli_joint(),
        _categorical(one_hot=False),
        _categorical(one_hot=True),
        _mixture(),
        _multivariate(),
        _lognormal(),
        _uniform(),
        _scalar("poisson", D.Poisson, torch.square, rate=(3.0, 7.0)),
        _scalar("geometric", D.Geometric, lambda x: x, probs=(0.4, -6.25)),
        _scalar("exponential", D.Exponential, torch.square, rate=(2.0, -0.5)),
        _scalar(
            "gamma", D.Gamma, torch.square, concentration=(2.0, 5 / 2.25), rate=(1.5, -12 / 3.375)
        ),
        _scalar(
            "gamma-rate", lambda rate: D.Gamma(torch.full_like(rate, 2.0), rate), torch.square,
            rate=(1.5, -12 / 3.375),
        ),
        _scalar(
            "log-gamma", lambda a: D.Gamma(a, torch.ones_like(a)), torch.log, a=(1.0, pi**2 / 6)
        ),
        _scalar(
            "beta", D.Beta, lambda x: x, concentration1=(2.0, 0.12), concentration0=(3.0, -0.08)
        ),
        _scalar("laplace", D.Laplace, torch.square, loc=(0.8, 1.6), scale=(0.5, 2.0)),
        multi_sample_bound(),
    ]  # fmt: skip
