"""A two-state MDP whose value and policy gradient are known in closed form.

State 0: action 0 stays (reward 1), action 1 goes to state 1 (reward 0).
State 1: action 0 goes back to 0 (reward 2), action 1 ends the episode (reward 3).
π(1 | s) = σ(θ_s); an episode starts in state 1 with probability 0.3.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Categorical

from thetaone.estimators import Episodes

START_IN_1 = 0.3
REWARD = ((1.0, 0.0), (2.0, 3.0))
NEXT = ((0, 1), (0, -1))  # -1: the episode ends
THETA = torch.tensor([0.4, -0.7], dtype=torch.float64)
DISCOUNT = 0.9


def values(theta: Tensor, discount: float = DISCOUNT) -> tuple[Tensor, Tensor]:
    """V(0), V(1): the Bellman equations solved by hand.

    V0 = (1 − p0)(1 + γ V0) + p0 γ V1;  V1 = (1 − p1)(2 + γ V0) + 3 p1.
    """
    p0, p1 = torch.sigmoid(theta)
    v0 = ((1 - p0) + discount * p0 * (2 + p1)) / (
        1 - discount * (1 - p0) - discount**2 * p0 * (1 - p1)
    )
    return v0, (1 - p1) * (2 + discount * v0) + 3 * p1


def objective(theta: Tensor, discount: float = DISCOUNT) -> Tensor:
    v0, v1 = values(theta, discount)
    return (1 - START_IN_1) * v0 + START_IN_1 * v1


def gradient_by_the_theorem(theta: Tensor, discount: float = DISCOUNT) -> Tensor:
    """Σ_s d(s) Σ_a ∇π(a|s) Q(s, a), with d the discounted visits; nothing is differentiated."""
    p0, p1 = torch.sigmoid(theta)
    v0, v1 = values(theta, discount)
    # d0 = µ0 + γ (1 − p0) d0 + γ (1 − p1) d1;  d1 = µ1 + γ p0 d0
    d0 = (1 - START_IN_1 + discount * (1 - p1) * START_IN_1) / (
        1 - discount * (1 - p0) - discount**2 * (1 - p1) * p0
    )
    d1 = START_IN_1 + discount * p0 * d0
    gain0 = discount * v1 - (1 + discount * v0)
    gain1 = 3 - (2 + discount * v0)
    return torch.stack([d0 * p0 * (1 - p0) * gain0, d1 * p1 * (1 - p1) * gain1])


def objective_of_horizon(
    theta: Tensor, horizon: int, tail: tuple[Tensor, Tensor], discount: float = DISCOUNT
) -> Tensor:
    """E Σ_{t<H} γ^t r_t + γ^H tail(s_H), by H Bellman steps back from the tail."""
    p0, p1 = torch.sigmoid(theta)
    v0, v1 = tail
    for _ in range(horizon):
        v0, v1 = (
            (1 - p0) * (1 + discount * v0) + p0 * discount * v1,
            (1 - p1) * (2 + discount * v0) + 3 * p1,
        )
    return (1 - START_IN_1) * v0 + START_IN_1 * v1


def gradient_of(f: Any, theta: Tensor = THETA) -> Tensor:
    parameter = theta.clone().requires_grad_()
    return torch.autograd.grad(f(parameter), parameter)[0]


def policy(theta: Tensor) -> Any:
    def distribution(observations: Tensor) -> Categorical:
        logit = theta[observations[..., 0].long()]
        return Categorical(logits=torch.stack([torch.zeros_like(logit), logit], -1))

    return distribution


@dataclass(frozen=True)
class Path:
    """One possible episode, and its probability under θ."""

    states: tuple[int, ...]
    actions: tuple[int, ...]
    last: int
    truncated: bool
    probability: float


def paths(horizon: int, theta: Tensor = THETA) -> list[Path]:
    """Every episode of at most ``horizon`` steps."""
    p_one = torch.sigmoid(theta).tolist()
    found: dict[tuple[int, ...], Path] = {}
    for start, choices in itertools.product((0, 1), itertools.product((0, 1), repeat=horizon)):
        state, states, probability = start, list[int](), START_IN_1 if start else 1 - START_IN_1
        for action in choices:
            states.append(state)
            probability *= p_one[state] if action else 1 - p_one[state]
            state = NEXT[state][action]
            if state < 0:
                break
        actions = choices[: len(states)]
        found[start, *actions] = Path(tuple(states), actions, state, state >= 0, probability)
    return list(found.values())


def side_by_side(chosen: tuple[Path, ...]) -> Episodes:
    longest = max(len(path.states) for path in chosen)
    shape = (longest, len(chosen))
    states, actions = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape)
    rewards, alive = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.bool)
    for k, path in enumerate(chosen):
        for t, (state, action) in enumerate(zip(path.states, path.actions, strict=True)):
            states[t, k], actions[t, k], alive[t, k] = state, action, True
            rewards[t, k] = REWARD[state][action]
    return Episodes(
        observations=states[..., None], actions=actions, rewards=rewards, alive=alive,
        truncated=torch.tensor([path.truncated for path in chosen]),
        last_observations=torch.tensor([[float(path.last)] for path in chosen]),
    )  # fmt: skip


def all_groups(horizon: int, n_episodes: int) -> Iterator[tuple[float, Episodes]]:
    """Every possible group of episodes, with its probability."""
    for group in itertools.product(paths(horizon), repeat=n_episodes):
        yield float(np.prod([path.probability for path in group])), side_by_side(group)


class TwoStates(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """The same MDP as a vector environment of gymnasium, in any of its autoreset modes."""

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int,
        mode: gymnasium.vector.AutoresetMode = gymnasium.vector.AutoresetMode.NEXT_STEP,
    ) -> None:
        self.num_envs, self.limit = num_envs, max_episode_steps
        self.mode = mode
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            assert self.mode.value == "Disabled"
            self._start(options["reset_mask"])
        else:
            self.state = np.zeros(self.num_envs, dtype=np.int64)
            self.steps = np.zeros(self.num_envs, dtype=np.int64)
            self.ended = np.zeros(self.num_envs, dtype=bool)
            self._start(np.ones(self.num_envs, dtype=bool))
        return self._seen(), {}

    def step(self, actions: Any) -> Any:
        fresh = self.ended.copy()
        assert not (fresh.any() and self.mode.value != "NextStep"), "stepped an ended environment"
        reward = np.array(REWARD)[self.state, actions]
        state = np.array(NEXT)[self.state, actions]
        self.steps += 1
        terminated = (state < 0) & ~fresh
        truncated = (self.steps >= self.limit) & ~fresh & ~terminated
        self.state = np.maximum(state, 0)
        if fresh.any():
            reward[fresh] = 0.0
            self._start(fresh)
        self.ended = terminated | truncated
        infos: dict[str, Any] = {}
        if self.mode.value == "SameStep" and self.ended.any():
            infos = {"final_obs": list(self._seen()), "_final_obs": self.ended.copy()}
            self._start(self.ended.copy())
        return self._seen(), reward, terminated, truncated, infos

    def _start(self, which: Any) -> None:
        self.state[which] = self.np_random.random(int(which.sum())) < START_IN_1
        self.steps[which] = 0
        self.ended[which] = False

    def _seen(self) -> Any:
        return self.state[:, None].astype(np.float32)
