"""The bundled task that acts: CartPole-v1 by policy gradient; the module itself is the task.

An on-policy task has no data before there is a policy. So a batch is a *promise* of episodes: the
first model whose loss is asked for acts them out, and the batch remembers them. In a training every
batch is used once, so the episodes are always the current policy's; asked again (a coordinate
check compares features on one batch), it is about the same observations.

It lives in ``studies`` because it joins two rooms: the task and the estimator of its gradient.
Needs the extra ``rl``.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from thetaone.errors import InputError
from thetaone.estimators import (
    Episodes,
    Policy,
    collect_episodes,
    make_environments,
    policy_gradient_loss,
)

ENVIRONMENT = "CartPole-v1"
N_OBSERVED = 4
N_ACTIONS = 2
DEPTH = 1
EPISODES = 16
ENTROPY_WEIGHT = 0.01
EVALUATION_EPISODES = 32
EVALUATION_SEED = 2**31 - 1  # far from the seeds that batches draw

# few updates: the return at their end says how fast a rate learns; many seeds: returns scatter
defaults: Mapping[str, Any] = {
    "widths": (32, 64, 128),
    "steps": 16,
    "lrs": tuple(2.0**power for power in range(-10, -1)),
    "seeds": tuple(range(8)),
}


class Batch:
    """Episodes to be: acted out by the first policy that asks, then kept."""

    def __init__(self, environments: Any, seed: int) -> None:
        self.environments = environments
        self.seed = seed
        self.episodes: Episodes | None = None

    def acted_by(self, model: nn.Module) -> Episodes:
        """The episodes, in this policy's own acting if nobody acted before."""
        if self.episodes is None:
            generator = torch.Generator().manual_seed(self.seed)
            self.episodes = collect_episodes(
                self.environments, policy(_unwatched(model)), seed=self.seed, generator=generator
            )
        return self.episodes


def model(width: int, depth: int = DEPTH) -> nn.Module:
    """A tanh perceptron with ``depth`` square hidden layers, from observation to logits.

    Raises:
        InputError: Width or depth is below 1.

    Examples:
        >>> sum(p.numel() for p in model(32).parameters())
        1282
    """
    if width < 1 or depth < 1:
        raise InputError(f"width={width}, depth={depth} of task cartpole: need at least 1 of each")
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())]
    first = nn.Linear(N_OBSERVED, width)
    return nn.Sequential(first, nn.Tanh(), *hidden, nn.Linear(width, N_ACTIONS))


def policy(model: nn.Module) -> Policy:
    """The model as a policy: observations to a distribution over the two pushes."""
    return lambda observations: Categorical(logits=model(observations), validate_args=False)


def batches(seed: int) -> Iterator[Batch]:
    """Endless promises of 16 episodes each; start states and chance are the seed's."""
    environments = make_environments(ENVIRONMENT, EPISODES)
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield Batch(environments, int(torch.randint(2**31 - 2, (), generator=generator)))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Minus the mean return [steps], between −500 and 0; its gradient is the policy gradient's.

    The time limit of 500 steps belongs to the objective, and nothing is discounted.
    """
    episodes = batch.acted_by(model)
    return policy_gradient_loss(
        policy(model), episodes, after_truncation=0.0, entropy_weight=ENTROPY_WEIGHT
    )


def evaluate(model: nn.Module) -> float:
    """Minus the mean return over 32 fresh episodes [steps]."""
    environments = make_environments(ENVIRONMENT, EVALUATION_EPISODES)
    return -float(Batch(environments, EVALUATION_SEED).acted_by(model).returns().mean())


def _unwatched(model: nn.Module) -> nn.Module:
    """A copy without hooks: whoever watches the model's layers sees the loss, not the acting."""
    bare = copy.deepcopy(model)
    for module in bare.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return bare
