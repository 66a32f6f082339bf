"""The measure-valued estimator: a difference of f under two densities, coordinate by coordinate."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import KNOWN, WeakDerivative, describe, elementary, sample
from thetaone.estimators.methods._baselines import tied

Draws = tuple[Tensor, list[WeakDerivative]]


class MeasureValued(Estimator):
    """ĝ_j = c_j (f(x with x_j ∼ p₊) − f(x with x_j ∼ p₋)), for ∂p/∂θ_j = c_j (p₊ − p₋).

    Unbiased for any f, by the definition of the weak derivative; only coordinate j is replaced.
    Costs 1 + 2P evaluations of f a sample for P scalar parameters: for few dimensions. Known for
    Normal (loc, scale), Bernoulli, Poisson, Exponential and the rate of Gamma.

    Source: Pflug 1996; Mohamed et al. 2020, arXiv 1906.10652, eq. 38 and table 1.

    Examples:
        >>> from torch.distributions import Laplace
        >>> MeasureValued().refusal(Laplace(0.0, 1.0))[:38]
        'no weak derivative of Laplace(batch ()'
    """

    def refusal(self, distribution: Distribution) -> str:
        """Refuse what has no known decomposition by each parameter that requires grad."""
        base = elementary(distribution)
        parameters = KNOWN.get(type(base))
        if parameters is None:
            names = ", ".join(kind.__name__ for kind in KNOWN)
            what = describe(distribution)
            return f"no weak derivative of {what} is known (only {names}); use LeaveOneOut()"
        aliases = {"probs", "logits", "_param"} if "probs" in parameters else set(parameters)
        missing = [
            name
            for name, value in vars(base).items()
            if isinstance(value, Tensor) and value.requires_grad and name not in aliases
        ]
        if missing:
            return (
                f"no weak derivative of {describe(distribution)} by {', '.join(missing)} is known; "
                "use LeaveOneOut()"
            )
        return ""

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Draws:
        """Samples, and for each parameter that requires grad a coupled pair for each coordinate."""
        base = elementary(distribution)
        x = sample(distribution, n_samples, generator)
        pairs: list[WeakDerivative] = []
        for name, pair in KNOWN[type(base)].items():
            if getattr(base, name).requires_grad:
                pairs.append(pair(base, n_samples, generator))
        return x, pairs

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Draws) -> Tensor:
        """f(x); its gradient is the difference."""
        x, pairs = draws
        values = f(x)
        n_lead = f.lead(values)
        with torch.no_grad():
            gradients = [(pair.parameter, _differences(f, x, pair, n_lead)) for pair in pairs]
        return values + tied(gradients, n_lead) if gradients else values


def _differences(f: Integrand, x: Tensor, pair: WeakDerivative, n_lead: int) -> Tensor:
    """Differences c (f₊ − f₋) of every coordinate, ``[n, *batch_shape]``."""
    n = x.shape[0]
    lead = x.shape[: 1 + n_lead]
    base, above, below = (part.reshape(*lead, -1) for part in (x, pair.above, pair.below))
    columns: list[Tensor] = []
    for index in range(base.shape[-1]):
        both = torch.cat([base, base])
        both[:n, ..., index] = above[..., index]
        both[n:, ..., index] = below[..., index]
        high, low = f(both.reshape(2 * n, *x.shape[1:])).unflatten(0, (2, n))
        columns.append(high - low)
    return torch.stack(columns, -1).reshape(x.shape) * pair.constant
