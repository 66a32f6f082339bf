"""Problem 6: estimators of a gradient of an expectation, and what keeps them unbiased."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law
from thetaone.records import LawResult

LAW = Law(
    "gradient-estimators", "x ∼ N(µ, σ²): which samples have the mean ∂/∂µ E f(x)?", resolution=5e-3
)
FEW = replace(LAW, resolution=2e-2)  # for a bias of 1/n with n = 4
DRAWS, BATCHES, BATCH = 500_000, 5_000, 4
NORMALS = ((1.0, 0.5), (1.5, 1.0))  # µ, σ

Function = Callable[[Tensor], Tensor]


def cubic(x: Tensor) -> Tensor:
    """x³."""
    return x**3


def cubic_slope(x: Tensor) -> Tensor:
    """3x²."""
    return 3 * x**2


def measure(formula: Formula) -> list[LawResult]:
    """Means over many samples, and over many batches of four, against 3µ² + 3σ² and e^(µ+σ²/2)."""
    generator = torch.Generator().manual_seed(206)
    rows = [
        LAW.statistical(
            f"∂/∂µ E x³, µ={mu}, σ={sigma}, {DRAWS:,} samples",
            3 * mu**2 + 3 * sigma**2,
            _samples(formula, (cubic, cubic_slope), (mu, sigma), DRAWS, generator),
        )
        for mu, sigma in NORMALS
    ]
    mu, sigma = NORMALS[0]
    rows.append(
        LAW.statistical(
            f"∂/∂µ E eˣ, µ={mu}, σ={sigma}, {DRAWS:,} samples",
            math.exp(mu + sigma**2 / 2),
            _samples(formula, (torch.exp, torch.exp), (mu, sigma), DRAWS, generator),
        )
    )
    means = [
        _samples(formula, (cubic, cubic_slope), (mu, sigma), BATCH, generator).mean()
        for _ in range(BATCHES)
    ]
    quantity = f"∂/∂µ E x³, µ={mu}, σ={sigma}, {BATCHES:,} batches of {BATCH}"
    rows.append(FEW.statistical(quantity, 3 * mu**2 + 3 * sigma**2, torch.stack(means)))
    return rows


def _samples(
    formula: Formula,
    integrand: tuple[Function, Function],
    normal: tuple[float, float],
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    f, slope = integrand
    mu, sigma = normal
    noise = torch.randn(draws, generator=generator, dtype=torch.float64)
    return formula.samples(f=f, slope=slope, x=mu + sigma * noise, mu=mu, sigma=sigma, noise=noise)


def numbers(formula: Formula) -> list[float]:
    """What the formula makes of four samples."""
    generator = torch.Generator().manual_seed(207)
    return _samples(formula, (cubic, cubic_slope), (1.5, 2.0), BATCH, generator).tolist()


GRADIENT_ESTIMATORS = Problem(
    law=LAW,
    arguments={
        "f": "the function, of a tensor",
        "slope": "its derivative",
        "x": "samples µ + σ·noise, shape (n,)",
        "mu": "µ",
        "sigma": "σ",
        "noise": "unit Gaussian, shape (n,)",
    },
    measure=measure,
    numbers=numbers,
    readings={
        "the score over σ in place of σ²": lambda f, x, mu, sigma: f(x) * (x - mu) / sigma,
        "the score alone: its mean is 0": lambda x, mu, sigma: (x - mu) / sigma**2,
        "the sign of the score turned": lambda f, x, mu, sigma: f(x) * (mu - x) / sigma**2,
        "the slope at the mean: the mean of a slope is not that": lambda slope, x, mu: slope(
            mu + 0 * x
        ),
        "a baseline that has seen x: the mean of the same samples": lambda f, x, mu, sigma: (
            (f(x) - f(x).mean()) * (x - mu) / sigma**2
        ),
        "the pathwise gradient in σ": lambda slope, x, noise: slope(x) * noise,
    },
)
