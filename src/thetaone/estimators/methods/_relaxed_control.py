"""The surrogate that REBAR and RELAX share: a relaxed control variate of any form."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import log_ratio, uniform
from thetaone.estimators.methods._bernoulli import (
    bernoulli_logits,
    bernoulli_refusal,
    relaxed,
    relaxed_given,
)

Noise = tuple[Tensor, Tensor]


class RelaxedControl(Estimator):
    """Bernoulli samples with a control variate that is a function of their relaxation."""

    uses_score: bool = True

    def refusal(self, distribution: Distribution) -> str:
        """Refuse anything but Bernoulli."""
        return bernoulli_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Noise:
        """Uniform noise u, v."""
        theta = bernoulli_logits(distribution)
        return uniform(theta, n_samples, generator), uniform(theta, n_samples, generator)


def controlled_rows(
    f: Integrand,
    distribution: Distribution,
    noise: Noise,
    control: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Rows with gradient [f(b) − c(z̃)] ∇log p(b) + ∇c(z) − ∇c(z̃).

    Unbiased for any c: E[c(z̃) ∇log p(b) + ∇c(z̃)] = ∇E c(z), since z̃ given b has the law of z
    given b. Leaving out the last term biases it.

    Args:
        f: The integrand, evaluated once, on b.
        distribution: Bernoulli.
        noise: (u, v), uniform, ``[n, *batch_shape]`` each.
        control: c(z, n_lead), ``[n, *lead]``, differentiable in z.

    Source: Tucker et al. 2017, arXiv 1703.07370, eq. 6; Grathwohl et al. 2018, arXiv 1711.00123,
    eq. 8.
    """
    theta = bernoulli_logits(distribution)
    u, v = noise
    z, b = relaxed(theta, u)
    conditional = relaxed_given(theta, b, v)
    values = f(b)
    n_lead = f.lead(values)
    c, c_conditional = control(z, n_lead), control(conditional, n_lead)
    weight = values.detach() - c_conditional
    score_term = weight * log_ratio(distribution, b, n_lead, f.checks)
    correction = (c - c.detach()) - (c_conditional - c_conditional.detach())
    return values + score_term + correction
