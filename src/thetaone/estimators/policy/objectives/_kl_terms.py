"""Estimators of the KL between a policy and its reference, and what their gradients are of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thetaone.errors import EstimatorError
from thetaone.estimators.policy.objectives._objective import (
    KLKind,
    KLPlace,
    Objective,
    ObjectiveSettings,
    objective_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KLTerm:
    """A KL estimate of each token, with the objective that it takes away.

    Attributes:
        values: ``[completions, tokens]``; on the graph in the loss, detached in the reward.
        kind: ``k1``, ``k2`` or ``k3``.
        place: ``loss`` or ``reward``.
        weighted: Whether it is multiplied with the importance ratio.
        objective: What minus this term ascends, for β = 1.

    Examples:
        >>> from thetaone.estimators.policy import kl_term
        >>> log_probs, reference = torch.zeros(1, 2), torch.tensor([[-1.0, 0.0]])
        >>> kl_term(log_probs, reference, kind="k1", place="reward").values.tolist()
        [[1.0, 0.0]]
    """

    values: Tensor
    kind: KLKind
    place: KLPlace
    weighted: bool
    objective: Objective


def kl_term(
    log_probs: Tensor,
    reference_log_probs: Tensor,
    *,
    kind: KLKind = "k1",
    place: KLPlace = "reward",
    weighted: bool = False,
) -> KLTerm:
    """An estimate of KL(π‖ρ) at each sampled token: for the loss, or to take from the reward.

    k1 = log π/ρ, k2 = ½k1², k3 = ρ/π − 1 − log ρ/π. All three have about the right value; their
    gradients are of different things:

    |    | in the loss        | in the reward                    | in the loss, × ratio |
    |----|--------------------|----------------------------------|----------------------|
    | k1 | 0: nothing         | ∇KL(π‖ρ)                         | ∇KL(π‖ρ)             |
    | k2 | ∇KL(π‖ρ)           | ∇E[k2] − ∇KL(π‖ρ)                | ∇E[k2]               |
    | k3 | ∇KL(ρ‖π), forward  | ∇KL(π‖ρ) − ∇KL(ρ‖π)              | ∇KL(π‖ρ)             |

    In the loss a sequence's KL is that of its tokens in the states visited, held fixed; in the
    reward the sum over tokens goes to the whole completion and the sequence's KL is exact.

    Args:
        log_probs: log π of the sampled tokens, on the graph, ``[completions, tokens]``.
        reference_log_probs: log ρ of them, same shape.
        kind: Which.
        place: ``loss`` or ``reward``.
        weighted: Multiply with π/π_old, 1 in value, so that the sampling is differentiated too.

    Raises:
        EstimatorError: Shapes that would broadcast, or weighted in the reward.

    Source: Schulman 2020, "Approximating KL divergence"; 2512.21852 (gradients).
    """
    if log_probs.shape != reference_log_probs.shape:
        raise EstimatorError(
            f"log_probs {tuple(log_probs.shape)} and reference_log_probs "
            f"{tuple(reference_log_probs.shape)} would broadcast: pass the same tokens' of both"
        )
    if weighted and place == "reward":
        raise EstimatorError(
            "weighted=True belongs to place='loss': a reward is not differentiated"
        )
    # what stands behind a completion's end may be −inf or NaN: it keeps its value, not a gradient
    reference = reference_log_probs.detach()
    known = torch.isfinite(log_probs.detach() - reference)
    there = torch.where(known, log_probs, torch.zeros_like(log_probs))
    log_ratio = there - torch.where(known, reference, torch.zeros_like(reference))
    values = {
        "k1": lambda: log_ratio,
        "k2": lambda: log_ratio**2 / 2,
        "k3": lambda: torch.expm1(-log_ratio) + log_ratio,
    }[kind]()
    if weighted:
        values = values * (there - there.detach()).exp()
    values = torch.where(known, values, log_probs.detach() - reference)
    settings = ObjectiveSettings(
        advantage="none", kl_kind=kind, kl_place=place, kl_weighted=weighted, kl_coefficient=1.0
    )
    whole = objective_of(settings)
    objective = Objective(
        name=whole.name.removeprefix("expected reward and "),
        formula=whole.formula.removeprefix("E[R] "),
        caveats=whole.caveats,
    )
    return KLTerm(
        values=values if place == "loss" else values.detach(),
        kind=kind,
        place=place,
        weighted=weighted,
        objective=objective,
    )
