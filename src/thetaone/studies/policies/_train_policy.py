"""Trains the policy of the bundled task until its environment steps are spent."""

import time
from collections.abc import Callable

import torch

from thetaone.errors import InputError
from thetaone.records import PolicyRun, PolicyUpdate
from thetaone.studies import cartpole
from thetaone.studies.policies._actor import require_width
from thetaone.sweeps import whole_numbers

LR = 0.01
WIDTH = 64
ENV_STEPS = 300_000


def train_policy(
    *,
    seed: int = 0,
    env_steps: int = ENV_STEPS,
    width: int = WIDTH,
    lr: float = LR,
    progress: Callable[[PolicyUpdate], None] | None = None,
) -> PolicyRun:
    """REINFORCE with reward-to-go, per-time leave-one-out baseline, entropy bonus and Adam.

    Stops before the update whose episodes would exceed the budget. A finished environment that
    waits for the longest episode is stepped, so it is counted.

    Args:
        seed: Of initialization, start states and actions.
        env_steps: Budget, those of waiting environments included [count].
        width: Of the policy's hidden layers.
        lr: Adam's learning rate.
        progress: Called after every update.

    Returns:
        The return of every episode.

    Raises:
        InputError: A learning rate that is not positive, a width out of range, or a budget too
            small for one update.
        MissingExtraError: gymnasium is not installed.
    """
    if not 0 < lr < float("inf"):
        raise InputError(f"lr={lr}: must be a positive number, e.g. {LR}")
    (seed,) = whole_numbers("seed", [seed], least=0)
    width = require_width(width)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cartpole.model(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    updates: list[PolicyUpdate] = []
    spent = 0
    for batch in cartpole.batches(seed):
        episodes = batch.acted_by(model)
        spent += episodes.n_simulated
        if spent > env_steps:
            break
        optimizer.zero_grad()
        cartpole.loss(model, batch).backward()
        optimizer.step()
        updates.append(PolicyUpdate(env_steps=spent, returns=tuple(episodes.returns().tolist())))
        if progress is not None:
            progress(updates[-1])
    if not updates:
        raise InputError(
            f"env_steps={env_steps}: the first {cartpole.EPISODES} episodes took {spent}; pass more"
        )
    return PolicyRun(
        task="cartpole", environment=cartpole.ENVIRONMENT, width=width, lr=lr, seed=seed,
        budget_steps=env_steps, updates=tuple(updates), wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
