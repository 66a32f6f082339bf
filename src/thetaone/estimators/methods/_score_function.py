"""The score function estimator (REINFORCE), with a baseline that never sees the sample."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError
from thetaone.estimators._integrand import Integrand
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import (
    describe,
    elementary,
    log_ratio,
    magic_box,
    moving_support,
    sample,
    sample_scores,
    scored,
)
from thetaone.estimators.methods._baselines import MovingAverage, optimal_baseline, tied

Baseline = float | Tensor | MovingAverage | Callable[[], Any] | Literal["optimal"] | None


def score_refusal(distribution: Distribution) -> str:
    """Why ∇ log p does not give the gradient for this distribution; empty when it does."""
    if type(elementary(distribution)).log_prob is Distribution.log_prob:
        return f"{describe(distribution)} has no log_prob; use Pathwise() if it has rsample"
    moves = moving_support(distribution)
    if moves:
        return (
            f"the support of {describe(distribution)} {moves}, so ∇ log p may miss what crosses "
            "its edge; use Pathwise() if the distribution has rsample"
        )
    return ""


class ScoreFunction(Estimator):
    """ĝ = (1/S) Σ_i (f(x_i) − b) ∇θ log pθ(x_i).

    Unbiased for any f, differentiable or not, because E[∇θ log pθ] = 0 and b does not depend on
    x_i. Needs p differentiable in θ and a support that stays put. Costs 1 evaluation of f a sample
    (2 with ``"optimal"``). The samples are never attached to the graph. With f = f_θ its own
    gradient is added exactly. Differentiable to any order (DiCE).

    Args:
        baseline: ``None``; a number or tensor; a ``MovingAverage``; a callable without arguments,
            asked before f is evaluated; or ``"optimal"``, b*_j = E[f s_j²]/E[s_j²] for each
            coordinate, from as many independent samples.

    Source: Williams 1992; Mohamed et al. 2020, arXiv 1906.10652, eq. 13 and 53; arXiv 1802.05098.

    Examples:
        >>> ScoreFunction(baseline=MovingAverage(0.9)).name
        'ScoreFunction(baseline=MovingAverage(0.9))'
    """

    higher_order: ClassVar[bool] = True
    uses_score: bool = True

    def __init__(self, baseline: Baseline = None) -> None:
        if callable(baseline):
            _refuse_arguments(baseline)
        elif isinstance(baseline, str) and baseline != "optimal":
            raise EstimatorError(
                f"baseline={baseline!r}: the only baseline with a name is 'optimal'; otherwise "
                "pass a number, a tensor, MovingAverage() or a callable"
            )
        self.baseline = baseline

    @property
    def name(self) -> str:
        """Name with the baseline."""
        if self.baseline is None:
            return "ScoreFunction"
        label = getattr(self.baseline, "__name__", None) or repr(self.baseline)
        return f"ScoreFunction(baseline={label})"

    def refusal(self, distribution: Distribution) -> str:
        """Refuse a support that moves with θ."""
        return score_refusal(distribution)

    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """Samples, and the independent ones for the optimal baseline."""
        x = sample(distribution, n_samples, generator)
        pilot = sample(distribution, n_samples, generator) if self.baseline == "optimal" else None
        return x, pilot

    def surrogate(
        self, f: Integrand, distribution: Distribution, draws: tuple[Tensor, Tensor | None]
    ) -> Tensor:
        """□ f − (□ − 1) b."""
        x, pilot = draws
        baseline = self._before(x)
        values = f(x)
        ratio = log_ratio(distribution, x, f.lead(values), f.checks)
        if pilot is not None:
            return magic_box(ratio) * values - self._optimal(
                f, distribution, x, pilot, f.lead(values)
            )
        if isinstance(self.baseline, MovingAverage):
            f.checks.settle()  # it must not take in what is refused
            self.baseline.update(values.detach().mean(0))
        if baseline is None:
            return magic_box(ratio) * values
        _check_baseline(baseline, values)
        return scored(values, ratio, baseline)

    def _before(self, x: Tensor) -> Tensor | None:
        baseline = self.baseline
        if isinstance(baseline, MovingAverage):
            return baseline.value
        if baseline is None or isinstance(baseline, str):
            return None
        value = baseline() if callable(baseline) else baseline
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return torch.as_tensor(value, device=x.device, dtype=dtype).detach()

    def _optimal(
        self, f: Integrand, distribution: Distribution, x: Tensor, pilot: Tensor, n_lead: int
    ) -> Tensor:
        with torch.no_grad():
            values = f(pilot)
        main, independent = sample_scores(distribution, x), sample_scores(distribution, pilot)
        pairs = [
            (phi, optimal_baseline(values, pilot_score) * score)
            for (phi, score), (_, pilot_score) in zip(main, independent, strict=True)
        ]
        return tied(pairs, n_lead)


def _refuse_arguments(baseline: Callable[..., Any]) -> None:
    required = [
        name
        for name, parameter in inspect.signature(baseline).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise EstimatorError(
            f"the baseline takes {', '.join(required)}: a baseline that sees the sample biases the "
            "gradient. Pass a callable without arguments (it is asked before f is evaluated), or "
            "use LeaveOneOut() or MovingAverage()"
        )


def _check_baseline(baseline: Tensor, values: Tensor) -> None:
    lead = values.shape[1:]
    if baseline.shape == lead or baseline.dim() == 0:
        return
    raise EstimatorError(
        f"the baseline has shape {tuple(baseline.shape)}; expected () or {tuple(lead)}. One value "
        "a sample would depend on the sample and bias the gradient: use LeaveOneOut() for that"
    )
