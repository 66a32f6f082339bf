"""Law 6, measured: three estimators of the gradient of E x³ under N(µ, σ²), sample by sample."""

import torch
from torch.distributions import Normal

from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _estimators as estimators
from thetaone.records import LawResult

LAW = Law("gradient-estimators", "Score function, with and without baseline, and pathwise agree")
MU, SIGMA = 1.0, 0.5
BASELINE = 1.75  # any number that does not depend on the sample; here F itself
DRAWS = 3_000_000  # the score function's relative standard deviation is about 2.4


def measure() -> list[LawResult]:
    """Score function, baseline and pathwise gradients in µ; pathwise in σ."""
    generator = torch.Generator().manual_seed(106)
    in_mu = estimators.cubic_gradient_mu(MU, SIGMA)
    noise = torch.randn(DRAWS, generator=generator, dtype=torch.float64)
    x = MU + SIGMA * noise
    score = (x - MU) / SIGMA**2
    slope = 3 * x**2
    return [
        LAW.statistical("∂F/∂µ, score function f·(x−µ)/σ²", in_mu, x**3 * score),
        LAW.statistical("∂F/∂µ, score function minus a baseline", in_mu, (x**3 - BASELINE) * score),
        LAW.statistical("∂F/∂µ, pathwise ∇f(µ+σε)", in_mu, slope),
        LAW.statistical(
            "∂F/∂σ, pathwise ∇f(µ+σε)·ε", estimators.cubic_gradient_sigma(MU, SIGMA), slope * noise
        ),
        LAW.exact("∇µ log p of torch's Normal / ((x−µ)/σ²)", 1.0, _score_ratio()),
    ]


def _score_ratio() -> float:
    """Autograd's score at a point over the formula's."""
    mu = torch.tensor(MU, dtype=torch.float64, requires_grad=True)
    x = torch.tensor(1.7, dtype=torch.float64)
    (score,) = torch.autograd.grad(Normal(mu, SIGMA).log_prob(x), mu)
    return float(score) / ((1.7 - MU) / SIGMA**2)
