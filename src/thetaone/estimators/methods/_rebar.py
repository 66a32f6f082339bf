"""REBAR: the score function with f itself, relaxed, as control variate."""

from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import InputError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators.methods._pathwise import refuse_cut
from thetaone.estimators.methods._relaxed_control import Noise, RelaxedControl, controlled_rows


class REBAR(RelaxedControl):
    """ĝ = [f(b) − c(z̃)] ∇log p(b) + ∇c(z) − ∇c(z̃), c(z) = η f(σ(z/τ)).

    Unbiased for any η and τ (see ``relaxed_control``); untuned it can be noisier than the plain
    score function. f must be differentiable between 0 and 1. Costs 3 evaluations of f a sample.

    Args:
        temperature: τ > 0.
        eta: η, the weight of the control variate.

    Source: Tucker et al. 2017, arXiv 1703.07370, eq. 6.

    Examples:
        >>> REBAR(temperature=0.1).name
        'REBAR(τ=0.1, η=1)'
    """

    differentiates = True

    def __init__(self, temperature: float = 0.5, eta: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"temperature={temperature}: must be > 0; 0.5 is usual")
        self.temperature, self.eta = temperature, eta

    @property
    def name(self) -> str:
        """Name with temperature and weight."""
        return f"REBAR(τ={self.temperature:g}, η={self.eta:g})"

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Noise) -> Tensor:
        """See ``controlled_rows``."""

        def control(z: Tensor, n_lead: int) -> Tensor:
            soft = (z / self.temperature).sigmoid()
            values = f(soft)
            refuse_cut(values, soft)
            return self.eta * values

        return controlled_rows(f, distribution, draws, control)
