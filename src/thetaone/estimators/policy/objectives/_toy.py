"""A policy so small that every group of completions can be listed: the judge of named objectives.

At each of three positions one of two tokens is drawn: 0 ends the completion, 1 goes on; the third
token ends it anyway. Four completions of lengths 1, 2, 3, 3; rewards 0 or 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import factorial, prod

import torch
from torch import Tensor

from thetaone.estimators.policy.objectives._group_advantages import group_advantages
from thetaone.estimators.policy.objectives._kl_terms import kl_term
from thetaone.estimators.policy.objectives._objective import (
    ObjectiveSettings,
    standardized_multiplier,
)
from thetaone.estimators.policy.objectives._token_loss import group_policy_loss

TOKENS = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
MASK = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.bool)
LENGTHS = MASK.sum(1)
LARGEST_GROUP = 16  # 969 groups; larger ones are judged at this size [count]


@dataclass(frozen=True)
class Toy:
    """Logits of policy and reference by position, ``[3, 2]``, and rewards, ``[4]``."""

    logits: Tensor
    reference_logits: Tensor
    rewards: Tensor


def toy() -> Toy:
    """One toy, in float64, with nothing special about its numbers."""
    return Toy(
        torch.tensor([[0.2, -0.4], [0.5, 0.1], [-0.3, 0.6]], dtype=torch.float64),
        torch.tensor([[-0.1, 0.3], [0.2, 0.4], [0.4, -0.2]], dtype=torch.float64),
        torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64),
    )


def token_log_probs(logits: Tensor, completions: Tensor) -> Tensor:
    """Log π of each token of completions given by index, ``[n, 3]``, 0 behind the end."""
    table = logits.log_softmax(-1)
    picked = table[torch.arange(3).expand(len(completions), 3), TOKENS[completions]]
    return torch.where(MASK[completions], picked, torch.zeros_like(picked))


def expected_gradient(settings: ObjectiveSettings, of: Toy) -> Tensor:
    """E ĝ of the loss with these settings, over every group of completions, ``[3, 2]``."""
    total = torch.zeros_like(of.logits)
    chances = token_log_probs(of.logits, torch.arange(4)).sum(1).exp()
    for completions, count in _groups(settings.group_size):
        chance = float(count * chances[completions].prod())
        logits = of.logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_loss(settings, of, logits, completions), logits)
        total -= chance * gradient
    return total


def _groups(size: int) -> Iterator[tuple[Tensor, int]]:
    """Every multiset of completions, and how many groups it stands for."""
    for chosen in combinations_with_replacement(range(4), size):
        orders = factorial(size) // prod(factorial(chosen.count(k)) for k in range(4))
        yield torch.tensor(chosen), orders


def _loss(settings: ObjectiveSettings, of: Toy, logits: Tensor, completions: Tensor) -> Tensor:
    log_probs = token_log_probs(logits, completions)
    mask, rewards, kl = MASK[completions], of.rewards[completions], None
    if settings.kl_kind is not None and settings.kl_coefficient:
        reference = token_log_probs(of.reference_logits, completions)
        kl = kl_term(
            log_probs, reference, kind=settings.kl_kind, place=settings.kl_place,
            weighted=settings.kl_weighted,
        )  # fmt: skip
        if kl.place == "reward":
            rewards = rewards - settings.kl_coefficient * kl.values.sum(1)
            kl = None
    table = logits.log_softmax(-1)
    entropies = -(table.exp() * table).sum(-1).expand(len(completions), 3)
    return group_policy_loss(
        log_probs, group_advantages(rewards[None], settings.advantage, epsilon=settings.epsilon),
        mask, aggregation=settings.aggregation, kl=kl, kl_coefficient=settings.kl_coefficient,
        entropies=entropies, entropy_weight=settings.entropy_weight,
    ).value  # fmt: skip


def named_gradient(settings: ObjectiveSettings, of: Toy) -> Tensor:
    """Gradient of the objective that ``objective_of`` names, by its formula, ``[3, 2]``."""
    logits = of.logits.clone().requires_grad_()
    p = token_log_probs(logits, torch.arange(4)).sum(1).exp()
    still = p.detach()
    widths: dict[str, Tensor | int] = {
        "sequence-sum": 1, "constant": 3, "sequence-mean": LENGTHS,
        "token-mean": still @ LENGTHS.double(),
    }  # fmt: skip
    width = widths[settings.aggregation]
    rewards, beta = of.rewards, settings.kl_coefficient if settings.kl_kind else 0.0
    if beta and settings.kl_place == "reward":
        rewards = rewards - beta * _estimates(settings.kl_kind, logits, of).sum(1).detach()
    centre = 0.0 if settings.advantage == "none" else still @ rewards
    objective = _multiplier(settings, still @ of.rewards) * (p * (rewards - centre) / width).sum()
    if beta and settings.kl_place == "loss":
        objective = objective - beta * _named_kl(settings, logits, of, width)
    if settings.entropy_weight:
        table = logits.log_softmax(-1)
        states = -(table.exp() * table).sum(-1)
        objective = objective + settings.entropy_weight * _over_states(states, still, width)
    (gradient,) = torch.autograd.grad(objective, logits)
    return gradient


def intended_gradient(settings: ObjectiveSettings, of: Toy) -> Tensor:
    """Gradient of E[R] − β·KL(π‖ρ), what the settings are usually meant for, ``[3, 2]``."""
    meant = ObjectiveSettings(
        kl_kind=settings.kl_kind and "k1", kl_place="reward",
        kl_coefficient=settings.kl_coefficient, group_size=2,
    )  # fmt: skip
    return named_gradient(meant, of)


def within_reach(settings: ObjectiveSettings) -> ObjectiveSettings:
    """The same settings with a group that the toy can list."""
    return replace(settings, group_size=min(settings.group_size, LARGEST_GROUP))


def _multiplier(settings: ObjectiveSettings, p: Tensor) -> float:
    g = settings.group_size
    if settings.advantage in ("none", "leave-one-out"):
        return 1.0
    if settings.advantage == "mean":
        return (g - 1) / g
    return standardized_multiplier(float(p), g, settings.epsilon)


def _estimates(kind: str | None, logits: Tensor, of: Toy) -> Tensor:
    """K of each token of each completion, ``[4, 3]``."""
    every = torch.arange(4)
    log_ratio = token_log_probs(logits, every) - token_log_probs(of.reference_logits, every)
    if kind == "k1":
        return log_ratio
    return log_ratio**2 / 2 if kind == "k2" else (-log_ratio).exp() - 1 + log_ratio


def _named_kl(settings: ObjectiveSettings, logits: Tensor, of: Toy, width: Tensor | int) -> Tensor:
    """The divergence of a KL in the loss, state by state."""
    log_p, log_r = logits.log_softmax(-1), of.reference_logits.log_softmax(-1)
    still = token_log_probs(logits, torch.arange(4)).sum(1).exp().detach()
    reverse = (log_p.exp() * (log_p - log_r)).sum(-1)
    forward = (log_r.exp() * (log_r - log_p)).sum(-1)
    if settings.kl_kind == "k1" and not settings.kl_weighted:
        chances = token_log_probs(logits, torch.arange(4)).sum(1).exp()
        return (chances / width).sum()  # a constant unless the width is the length
    if settings.kl_kind == "k2" and settings.kl_weighted:
        return _over_states((log_p.exp() * (log_p - log_r) ** 2 / 2).sum(-1), still, width)
    unweighted_k3 = settings.kl_kind == "k3" and not settings.kl_weighted
    return _over_states(forward if unweighted_k3 else reverse, still, width)


def _over_states(per_state: Tensor, still: Tensor, width: Tensor | int) -> Tensor:
    """Σ over the states that completions visit, their law held fixed."""
    visited = (MASK * per_state).sum(1)
    return (still * visited / width).sum()
