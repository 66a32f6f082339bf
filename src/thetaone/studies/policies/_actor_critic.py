"""Trains a policy with a critic on any gymnasium environment, or one of the user's."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, TaskError
from thetaone.estimators.policy import (
    Episodes,
    clipped_ratio_loss,
    collect_episodes,
    generalized_advantages,
    make_environments,
)
from thetaone.records import PolicyRun, PolicyUpdate, local_path
from thetaone.studies.policies._actor import Actor, perceptron, require_width
from thetaone.studies.policies._flat_environments import FlatEnvironments
from thetaone.sweeps import whole_numbers
from thetaone.tasks import load_file

N_ENVS = 16


@dataclass(frozen=True, kw_only=True)
class ActorCriticSettings:
    """How an actor and its critic learn.

    Attributes:
        width: Of two hidden layers each.
        lr: Adam's learning rate, falling linearly to 0 over the budget.
        discount: γ of advantages and values: what is reported is not discounted.
        trace: λ of the advantages.
        passes: Passes over each batch of episodes [count].
        minibatch: Steps of one update [count].
        clip: ε of the ratio.
        entropy_weight: Weight of the entropy bonus.
    """

    width: int = 64
    lr: float = 1e-3
    discount: float = 0.97
    trace: float = 0.95
    passes: int = 10
    minibatch: int = 400
    clip: float = 0.2
    entropy_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            InputError: With the value and the range.
        """
        require_width(self.width)
        whole_numbers("passes", [self.passes], least=1)
        whole_numbers("minibatch", [self.minibatch], least=1)
        for name, value, low, high, words in (
            ("lr", self.lr, 0.0, math.inf, "a rate above 0, e.g. 1e-3"),
            ("discount", self.discount, 0.0, 1.0, "a factor above 0, at most 1, e.g. 0.97"),
            ("clip", self.clip, 0.0, math.inf, "an ε above 0, e.g. 0.2"),
        ):
            if not low < value <= high or value == math.inf:
                raise InputError(f"{name}={value}: need {words}")
        if not 0 <= self.trace <= 1:
            raise InputError(f"trace={self.trace}: need a factor from 0 to 1, e.g. 0.95")
        if not math.isfinite(self.entropy_weight):
            raise InputError(f"entropy_weight={self.entropy_weight}: need a finite number")


def train_actor_critic(
    environment: str | Path | Callable[[], Any],
    *,
    seed: int = 0,
    env_steps: int = 300_000,
    settings: ActorCriticSettings | None = None,
    progress: Callable[[PolicyUpdate], None] | None = None,
) -> PolicyRun:
    """Clipped ratio objective, generalized advantages and a value network, 16 episodes a batch.

    A time limit is taken for a truncation: what follows is the critic's value. Stops before the
    batch whose episodes would exceed the budget. One thread: the networks are small.

    Args:
        environment: A gymnasium id, the path of a Python file with a function
            ``make_environment()``, or such a function: it makes one ``gymnasium.Env`` with a time
            limit. Its observations and actions are choices, bits, arrays, or Dicts and Tuples of
            them.
        seed: Of initialization, environments and actions.
        env_steps: Budget, those of waiting environments included [count].
        settings: How it learns.
        progress: Called after every batch.

    Raises:
        InputError: An unknown environment, other spaces, no time limit, or a budget below one
            batch.
        TaskError: The file is missing, cannot be loaded, or has no ``make_environment``.
        MissingExtraError: gymnasium is not installed.
    """
    settings = settings or ActorCriticSettings()
    (seed,) = whole_numbers("seed", [seed], least=0)
    name, factory = _named(environment)
    started, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        updates = _updates(factory, seed, env_steps, settings, progress)
    finally:
        torch.set_num_threads(threads)
    return PolicyRun(
        task=name, environment=name, width=settings.width, lr=settings.lr, seed=seed,
        budget_steps=env_steps, updates=tuple(updates), wall_seconds=time.perf_counter() - started,
    )  # fmt: skip


def _named(environment: str | Path | Callable[[], Any]) -> tuple[str, str | Callable[[], Any]]:
    """Name of the environment, and what ``make_environments`` takes."""
    if callable(environment):
        return getattr(environment, "__name__", type(environment).__name__), environment
    path = local_path(environment)
    if path.suffix != ".py":
        return str(environment), str(environment)
    factory = getattr(load_file(path.resolve()), "make_environment", None)
    if not callable(factory):
        raise TaskError(
            f"{path} has no function 'make_environment'; write: def make_environment(): return "
            "<gymnasium.Env with a time limit>"
        )
    return path.stem, factory


def _updates(
    environment: str | Callable[[], Any], seed: int, env_steps: int, settings: ActorCriticSettings,
    progress: Callable[[PolicyUpdate], None] | None,
) -> list[PolicyUpdate]:  # fmt: skip
    environments = FlatEnvironments(make_environments(environment, N_ENVS))
    actor, critic = _networks(environments, settings.width, seed)
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=settings.lr)
    generator = torch.Generator().manual_seed(seed)
    updates: list[PolicyUpdate] = []
    spent, scale = 0, 0.0
    while True:
        batch_seed = int(torch.randint(2**31 - 2, (), generator=generator))
        episodes = collect_episodes(environments, actor, seed=batch_seed, generator=generator)
        spent += episodes.n_simulated
        if spent > env_steps:
            break
        scale = scale or float(episodes.rewards[episodes.alive].abs().mean()) or 1.0
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * max(0.0, 1 - spent / env_steps)
        _learn(actor, critic, optimizer, episodes, settings, scale, generator)
        updates.append(PolicyUpdate(env_steps=spent, returns=tuple(episodes.returns().tolist())))
        if progress is not None:
            progress(updates[-1])
    if not updates:
        raise InputError(
            f"env_steps={env_steps}: the first {N_ENVS} episodes took {spent}; pass more"
        )
    return updates


def _learn(
    actor: Actor, critic: nn.Module, optimizer: torch.optim.Optimizer, episodes: Episodes,
    settings: ActorCriticSettings, scale: float, generator: torch.Generator,
) -> None:  # fmt: skip
    """Several passes over one batch: actor by the ratio, critic by squares; rewards over scale."""
    alive = episodes.alive
    observations, actions = episodes.observations[alive], episodes.actions[alive]
    with torch.no_grad():
        values = critic(episodes.observations).squeeze(-1)
        advantages = generalized_advantages(
            _scaled(episodes, scale), values, critic(episodes.last_observations).squeeze(-1),
            discount=settings.discount, trace=settings.trace,
        )[alive]  # fmt: skip
        targets = advantages + values[alive]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        old = actor(observations).log_prob(actions)
    for _ in range(settings.passes):
        order = torch.randperm(len(targets), generator=generator)
        for rows in order.split(settings.minibatch):
            loss = clipped_ratio_loss(
                actor(observations[rows]), actions[rows], old[rows], advantages[rows],
                clip=settings.clip, entropy_weight=settings.entropy_weight,
            )  # fmt: skip
            error = critic(observations[rows]).squeeze(-1) - targets[rows]
            optimizer.zero_grad()
            (loss + 0.5 * (error**2).mean()).backward()
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
            optimizer.step()


def _scaled(episodes: Episodes, scale: float) -> Episodes:
    return Episodes(
        observations=episodes.observations, actions=episodes.actions,
        rewards=episodes.rewards / scale, alive=episodes.alive, truncated=episodes.truncated,
        last_observations=episodes.last_observations, n_simulated=episodes.n_simulated,
    )  # fmt: skip


def _networks(environments: FlatEnvironments, width: int, seed: int) -> tuple[Actor, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actor = Actor(environments.n_observed, environments.action_leaves, width)
        critic = perceptron(environments.n_observed, width, 1)
    return actor, critic
