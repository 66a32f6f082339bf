"""What an estimator is: it draws, and turns draws into a surrogate whose gradient is the answer."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators._integrand import Integrand


class Estimator(ABC):
    """An estimator of ∇θ E_{x∼pθ} f(x).

    All randomness is in ``draw``; ``surrogate`` is a deterministic function of the draws, so that a
    test can inject every possible draw and check the mean by enumeration.

    A surrogate has one row an independent unit (a sample, an antithetic pair, a group of K): its
    value is the unit's estimate of E f, its gradient the unit's estimate of ∇θ E f.

    Attributes:
        declared: ``unbiased``, or of what its gradient is the gradient instead.
        unbiased: Whether the mean of its gradient is that of its objective.
        objective: What is differentiated: ``E f`` unless the estimator is made for something else.
        higher_order: Whether differentiating the gradient again is right too.
        exact: Whether it has no randomness.
        differentiates: Whether it takes derivatives of f in place of differences, so that a jump of
            f goes unseen.
        uses_score: Whether it relies on ∇ log p, so that E[score] = 0 must hold.
        min_samples: Fewest samples it is defined for [count].
    """

    declared: str = "unbiased"
    unbiased: ClassVar[bool] = True
    objective: ClassVar[str] = "E f"
    higher_order: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    differentiates: bool = False
    uses_score: bool = False
    min_samples: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Name with the options that are not the default."""
        return type(self).__name__

    @abstractmethod
    def refusal(self, distribution: Distribution) -> str:
        """Why it does not apply to this distribution, and what to do; empty when it applies."""

    @abstractmethod
    def draw(
        self, distribution: Distribution, n_samples: int, generator: torch.Generator | None
    ) -> Any:
        """Everything random that ``n_samples`` samples need."""

    @abstractmethod
    def surrogate(self, f: Integrand, distribution: Distribution, draws: Any) -> Tensor:
        """One row a unit, ``[units, *lead]``; see the class.

        Args:
            f: The integrand.
            distribution: pθ.
            draws: What ``draw`` returned.
        """


def refusal_of(estimator: Estimator, distribution: Distribution) -> str:
    """As ``estimator.refusal``; what torch raises while it is asked is a refusal too."""
    try:
        return estimator.refusal(distribution)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        kind = type(distribution).__name__
        return f"whether it applies to {kind} cannot be told ({type(error).__name__}: {error})"
