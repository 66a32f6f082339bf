"""The loss of a batch of completions: ratio, clipping, aggregation over tokens, KL and entropy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators.policy.objectives._group_advantages import GroupAdvantages
from thetaone.estimators.policy.objectives._kl_terms import KLTerm
from thetaone.estimators.policy.objectives._objective import (
    Aggregation,
    Objective,
    ObjectiveSettings,
    objective_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A loss with the objective that descending on it ascends.

    Attributes:
        value: The loss, on the graph, a scalar.
        per_group: Its part of each group, on the graph, ``[groups]``; their mean is the value (with
            ``token-mean`` each is over its share of the batch's tokens). For ``gradient_noise``.
        objective: What is ascended.
        effective_samples: (Σ w)²/Σ w² of the completions' ratios π/π_old: their number on-policy,
            fewer the further π has moved [count].
        warning: Degenerate groups; empty when there are none.

    Examples:
        >>> from thetaone.estimators.policy import group_advantages, group_policy_loss
        >>> log_probs = torch.full((2, 3), -1.0, requires_grad=True)
        >>> advantages = group_advantages(torch.tensor([[1.0, 0.0]]))
        >>> loss = group_policy_loss(log_probs, advantages, torch.ones(2, 3, dtype=torch.bool))
        >>> loss.effective_samples, loss.objective.exact
        (2.0, True)
    """

    value: Tensor
    per_group: Tensor
    objective: Objective
    effective_samples: float
    warning: str = ""


def group_policy_loss(
    log_probs: Tensor,
    advantages: GroupAdvantages,
    mask: Tensor,
    *,
    old_log_probs: Tensor | None = None,
    clip: tuple[float, float] | None = None,
    sequence_ratio: bool = False,
    aggregation: Aggregation = "constant",
    max_tokens: int | None = None,
    kl: KLTerm | None = None,
    kl_coefficient: float = 0.0,
    entropies: Tensor | None = None,
    entropy_weight: float = 0.0,
    updates_per_batch: int = 1,
) -> PolicyLoss:
    """Minus Σ (π/π_old) A over tokens, aggregated, with KL and entropy: and what it ascends.

    Args:
        log_probs: log π of the sampled tokens, on the graph, ``[groups · G, tokens]``.
        advantages: Of ``group_advantages``, groups outermost. A KL in the reward is taken from the
            rewards before: see ``kl_term``.
        mask: Whether a token belongs to its completion, bool, same shape.
        old_log_probs: log π when the tokens were sampled; None on-policy.
        clip: (ε_low, ε_high): the ratio's range is [1 − ε_low, 1 + ε_high].
        sequence_ratio: Whether the ratio is the whole completion's, not each token's.
        aggregation: ``sequence-sum``, ``sequence-mean``, ``token-mean`` or ``constant``.
        max_tokens: L of ``constant``; None for the width of ``mask`` [count].
        kl: A KL for the loss.
        kl_coefficient: β ≥ 0.
        entropies: Entropy of π at each token, on the graph, same shape.
        entropy_weight: Weight of their mean, ≥ 0.
        updates_per_batch: Optimizer steps that this batch is used for [count].

    Raises:
        EstimatorError: Shapes that would broadcast, non-finite log-probabilities, an empty
            completion, or a KL of the reward.
        InputError: A weight without what it weighs.

    Examples:
        >>> from thetaone.estimators.policy.objectives import group_advantages
        >>> log_probs = torch.full((2, 3), -1.0, requires_grad=True)
        >>> loss = group_policy_loss(
        ...     log_probs, group_advantages(torch.tensor([[1.0, 0.0]])), torch.ones(2, 3).bool())
        >>> loss.objective.formula, loss.effective_samples
        ('E[R/L]', 2.0)
    """
    _check(log_probs, advantages, mask, old_log_probs, kl)
    weights = _token_weights(mask, aggregation, max_tokens).to(log_probs.dtype)
    inside = mask.to(log_probs.dtype)
    old = log_probs.detach() if old_log_probs is None else old_log_probs.detach()
    log_ratio = torch.where(mask, log_probs - old, torch.zeros_like(log_probs))
    if sequence_ratio:  # one ratio a completion, its gradient shared out over no token twice
        gain = _clipped(log_ratio.sum(1, keepdim=True), advantages, clip) / inside.sum(1, True)
        gain = gain.expand_as(log_probs)
    else:
        gain = _clipped(log_ratio, advantages, clip)
    per_token = -gain
    if kl is not None and kl_coefficient:
        per_token = per_token + kl_coefficient * kl.values
    if entropy_weight:
        if entropies is None or entropies.shape != mask.shape:
            raise InputError("entropy_weight needs entropies of the shape of mask")
        per_token = per_token - entropy_weight * entropies
    per_completion = (torch.where(mask, per_token, torch.zeros_like(per_token)) * weights).sum(1)
    groups, size = advantages.values.shape
    per_group = per_completion.view(groups, size).sum(1) * groups
    settings = ObjectiveSettings(
        advantage=advantages.kind, group_size=size, epsilon=advantages.epsilon,
        aggregation=aggregation, kl_kind=kl.kind if kl is not None else None, kl_place="loss",
        kl_weighted=kl is not None and kl.weighted, kl_coefficient=kl_coefficient,
        entropy_weight=entropy_weight, updates_per_batch=updates_per_batch, clip=clip,
    )  # fmt: skip
    return PolicyLoss(
        value=per_group.mean(),
        per_group=per_group,
        objective=objective_of(settings),
        effective_samples=_effective_samples(log_ratio.detach().sum(1)),
        warning=advantages.warning,
    )


def _clipped(
    log_ratio: Tensor, advantages: GroupAdvantages, clip: tuple[float, float] | None
) -> Tensor:
    """The lesser of ratio × A and clipped ratio × A, ``[completions, tokens or 1]``."""
    values = advantages.values.reshape(-1, 1).to(log_ratio.dtype)
    ratio = log_ratio.exp()
    if clip is None:
        return ratio * values
    return torch.minimum(ratio * values, ratio.clamp(1 - clip[0], 1 + clip[1]) * values)


def _token_weights(mask: Tensor, aggregation: Aggregation, max_tokens: int | None) -> Tensor:
    """Weight of each token; all together they make the aggregation, ``[completions, 1]``."""
    count = mask.shape[0]
    lengths = mask.sum(1, keepdim=True)
    if aggregation == "sequence-sum":
        return torch.full_like(lengths, 1, dtype=torch.float64) / count
    if aggregation == "sequence-mean":
        return 1 / (count * lengths.double())
    if aggregation == "token-mean":
        return torch.ones_like(lengths, dtype=torch.float64) / lengths.sum()
    if aggregation == "constant":
        size = mask.shape[1] if max_tokens is None else max_tokens
        return torch.ones_like(lengths, dtype=torch.float64) / (count * size)
    raise InputError(
        f"aggregation={aggregation!r}: choose sequence-sum, sequence-mean, token-mean or constant"
    )


def _effective_samples(log_weights: Tensor) -> float:
    return float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())


def _check(
    log_probs: Tensor, advantages: GroupAdvantages, mask: Tensor, old_log_probs: Tensor | None,
    kl: KLTerm | None,
) -> None:  # fmt: skip
    shape = (advantages.values.numel(), *mask.shape[1:])
    for name, tensor in (
        ("log_probs", log_probs), ("mask", mask), ("old_log_probs", old_log_probs),
        ("kl.values", None if kl is None else kl.values),
    ):  # fmt: skip
        if tensor is not None and (tensor.shape != shape or tensor.dim() != 2):
            raise EstimatorError(
                f"{name} has shape {tuple(tensor.shape)}; expected {shape}: one row a completion "
                f"({advantages.values.shape[0]} groups of {advantages.values.shape[1]})"
            )
    if mask.dtype is not torch.bool:
        raise EstimatorError(f"mask is {mask.dtype}; pass torch.bool")
    if not bool(mask.any(1).all()):
        raise EstimatorError("a completion has no token in mask: drop it, with its reward")
    if not bool(torch.isfinite(log_probs[mask]).all()):
        raise EstimatorError("log_probs hold NaN or infinite values inside mask")
    if kl is not None and kl.place != "loss":
        raise EstimatorError(
            "kl has place='reward': take β·kl.values summed over tokens from the rewards before "
            "group_advantages, or make it with place='loss'"
        )
