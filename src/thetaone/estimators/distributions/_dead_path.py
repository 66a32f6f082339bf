"""Whether the path of a sample depends on every parameter that its law depends on.

A path may be cut where the code branches on a parameter: torch's ContinuousBernoulli returns the
raw uniform for 0.499 < p < 0.501, so that there ∂x/∂p is 0 and a pathwise gradient silently 0.
"""

import torch
from torch import distributions as D
from torch.distributions import Distribution

from thetaone.estimators.distributions._sampling import probe_generator, sample
from thetaone.estimators.distributions._score_check import coordinate, path_derivative
from thetaone.estimators.distributions._structure import elementary, roots

# rsample is one formula in every parameter, whatever the values: nothing to look at
_NO_BRANCH = frozenset({
    D.Normal, D.Laplace, D.Cauchy, D.Gumbel, D.Exponential, D.Uniform, D.HalfNormal, D.LogNormal,
    D.StudentT, D.MultivariateNormal, D.LowRankMultivariateNormal, D.Gamma, D.Beta, D.Dirichlet,
    D.Chi2, D.Weibull, D.Pareto, D.Kumaraswamy, D.HalfCauchy, D.InverseGamma, D.FisherSnedecor,
})  # fmt: skip


def dead_path(distribution: Distribution) -> str:
    """The first parameter on which log p depends and no sample's path does; empty when none."""
    if type(elementary(distribution)) in _NO_BRANCH:
        return ""
    tensors = roots(distribution)
    if not tensors:
        return ""
    moves = path_derivative(distribution, list(tensors.values()))
    if all(bool((part != 0).all()) for part in moves):
        return ""
    scores = _score_sums(distribution, list(tensors.values()))
    for (name, tensor), path, score in zip(tensors.items(), moves, scores, strict=True):
        dead = (path == 0) & (score != 0)
        if bool(dead.any()):
            return coordinate(name, tensor, int(dead.flatten().nonzero()[0, 0]))
    return ""


def _score_sums(distribution: Distribution, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Σ_i w_i ∇θ log p(x_i) with random weights; zeros where log p is not known."""
    generator = probe_generator(tensors[0].device)
    x = sample(distribution, 64, generator)
    with torch.enable_grad():
        try:
            log_p = distribution.log_prob(x)
        except (NotImplementedError, ValueError):
            return [torch.zeros_like(tensor) for tensor in tensors]
        if not log_p.requires_grad:
            return [torch.zeros_like(tensor) for tensor in tensors]
        weights = torch.rand(log_p.shape, generator=generator, device=x.device) + 0.5
        parts = torch.autograd.grad(
            (log_p * weights).sum(), tensors, retain_graph=True, allow_unused=True
        )
    return [
        torch.zeros_like(tensor) if part is None else part
        for tensor, part in zip(tensors, parts, strict=True)
    ]
