"""A closed-form gradient for every family of distributions: what the conformance suite runs on."""

from collections.abc import Callable
from math import comb, exp, log, pi

import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution

from thetaone.estimators.judging._problems import (
    Problem,
    cosine,
    exponential_of_sum,
    float64,
    jump,
    quadratic,
    quadratic_location,
    step,
    tucker,
)


def _bernoulli_joint() -> Problem:
    """Of f = (b₁ + 2b₂ − ½)² + b₁b₂, by probs: f(b) = ¼ + 2b₂ + 5b₁b₂ on {0, 1}²."""
    p = float64(0.7, 0.4)
    return Problem(
        name="bernoulli-joint",
        make=lambda probs: D.Independent(D.Bernoulli(probs), 1),
        params={"probs": p},
        f=lambda b: (b[:, 0] + 2 * b[:, 1] - 0.5) ** 2 + b[:, 0] * b[:, 1],
        gradient={"probs": torch.stack([5 * p[1], 2 + 5 * p[0]])},
    )


def _categorical(*, one_hot: bool) -> Problem:
    """Of f_k = 1, 2, 4: p_k (f_k − F)."""
    logits, table = float64(1.0, -0.5, 0.2), float64(1.0, 2.0, 4.0)
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
    logits, loc = float64(0.3, -0.2), float64(-1.0, 2.0)
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


def _mixture_of_products() -> Problem:
    """Of f = x₁x₂, Σ_k w_k µ_k1 µ_k2; the coordinates depend on each other through k."""
    logits = float64(0.3, -0.2)
    loc = torch.tensor([[1.5, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    w, product = logits.softmax(0), loc.prod(-1)
    return Problem(
        name="mixture-of-products",
        make=lambda loc, logits: D.MixtureSameFamily(
            D.Categorical(logits=logits), D.Independent(D.Normal(loc, torch.ones_like(loc)), 1)
        ),
        params={"loc": loc, "logits": logits},
        f=lambda x: x.prod(-1),
        gradient={"loc": w[:, None] * loc.flip(-1), "logits": w * (product - (w * product).sum())},
    )


def _multivariate() -> Problem:
    """Of f = ‖x‖²: 2µ and 2L (lower triangle)."""
    loc, tril = float64(0.5, -1.0), torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64)
    return Problem(
        name="multivariate-normal",
        make=lambda loc, tril: D.MultivariateNormal(loc, scale_tril=tril.tril()),
        params={"loc": loc, "tril": tril},
        f=lambda x: (x**2).sum(-1),
        gradient={"loc": 2 * loc, "tril": 2 * tril},
    )


def _affine() -> Problem:
    """Of f = x², x = a + bz, z standard Normal: 2a and 2b, parameters of the transform."""
    return _scalar(
        "transformed",
        lambda shift, factor: D.TransformedDistribution(
            D.Normal(torch.zeros_like(shift), torch.ones_like(shift)),
            [D.AffineTransform(shift, factor)],
        ),
        torch.square,
        shift=(0.6, 1.2),
        factor=(0.7, 1.4),
    )


def _dirichlet() -> Problem:
    """Of f = x₁ with mean α₁/A, A = Σα: (1[k = 1] − α₁/A)/A."""
    alpha = float64(1.5, 2.0, 0.8)
    total, first = alpha.sum(), float64(1.0, 0.0, 0.0)
    return Problem(
        name="dirichlet",
        make=D.Dirichlet,
        params={"concentration": alpha},
        f=lambda x: x[..., 0],
        gradient={"concentration": (first - alpha[0] / total) / total},
    )


def _student() -> Problem:
    """Of f = x², df = 9: 2µ by loc, 2σ·9/7 by scale."""
    return _scalar(
        "student-t",
        lambda loc, scale: D.StudentT(torch.full_like(loc, 9.0), loc, scale),
        torch.square,
        loc=(0.8, 1.6),
        scale=(0.7, 1.8),
    )


def _lognormal() -> Problem:
    """Of f = x: exp(µ + σ²/2), a TransformedDistribution."""
    value = exp(0.2 + 0.125)
    return Problem(
        name="lognormal",
        make=D.LogNormal,
        params={"loc": float64(0.2), "scale": float64(0.5)},
        f=lambda x: x,
        gradient={"loc": float64(value), "scale": float64(0.5 * value)},
    )


def _uniform() -> Problem:
    """Of f = x² on U(0, θ): θ²/3, a support that moves."""
    return Problem(
        name="uniform",
        make=lambda high: D.Uniform(torch.zeros_like(high), high),
        params={"high": float64(1.5)},
        f=lambda x: x**2,
        gradient={"high": float64(1.0)},
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
        params={key: float64(value) for key, (value, _) in where.items()},
        f=f,
        gradient={key: float64(slope) for key, (_, slope) in where.items()},
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
        params={"logits": float64(theta)},
        f=lambda b: gain * b,
        gradient={"logits": float64(slope)},
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
        _mixture_of_products(),
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
        _dirichlet(),
        _affine(),
        _student(),
        # E cos x = A(κ) = I₁(κ)/I₀(κ), A' = 1 − A/κ − A²
        _scalar(
            "von-mises", lambda kappa: D.VonMises(torch.zeros_like(kappa), kappa), torch.cos,
            kappa=(2.0, 0.1642231977212077),
        ),
        _scalar(
            "binomial", lambda probs: D.Binomial(5, probs), torch.square, probs=(0.4, 5 + 40 * 0.4)
        ),
        # E x² = σ² Γ(1 + 2/k), k = 2
        _scalar(
            "weibull", lambda scale: D.Weibull(scale, torch.full_like(scale, 2.0)), torch.square,
            scale=(1.3, 2.6),
        ),
        _scalar("laplace", D.Laplace, torch.square, loc=(0.8, 1.6), scale=(0.5, 2.0)),
        multi_sample_bound(),
    ]  # fmt: skip
