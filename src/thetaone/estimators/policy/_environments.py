"""The only place that knows gymnasium: makes vector environments and plays episodes in them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thetaone.errors import InputError, MissingExtraError
from thetaone.estimators.distributions import drawing_from
from thetaone.estimators.policy._episodes import Episodes
from thetaone.estimators.policy._loss import Policy


def make_environments(environment: str | Callable[[], Any], n_envs: int, **options: Any) -> Any:
    """``n_envs`` copies of a gymnasium environment that step together.

    Takes the environment's own vectorised implementation where it has one (CartPole: one NumPy
    call for all), else steps them one after the other; there, actions of bounded arrays are
    rescaled to [−1, 1] and clipped.

    Args:
        environment: Registered id, ``"CartPole-v1"``, or a function that makes one
            ``gymnasium.Env``.
        n_envs: Copies, at least 2: the baseline of each episode is the others [count].
        **options: For the environment's constructor, or the function.

    Raises:
        MissingExtraError: gymnasium is not installed.
        InputError: gymnasium does not know the name, the function makes something else, or too few
            copies.

    Examples:
        >>> make_environments("CartPole-v1", 4).num_envs
        4
    """
    if n_envs < 2:
        raise InputError(f"n_envs={n_envs}: need at least 2, the baseline of each is the others")
    gymnasium = _gymnasium()
    if callable(environment):
        one = partial(_made, environment, options)
        return gymnasium.vector.SyncVectorEnv([one] * n_envs)
    try:
        spec = gymnasium.spec(environment)
        mode = "vector_entry_point" if spec.vector_entry_point else "sync"
        if mode == "sync":
            options = {"wrappers": [_to_unit_actions]} | options
        return gymnasium.make_vec(environment, num_envs=n_envs, vectorization_mode=mode, **options)
    except gymnasium.error.Error as error:
        raise InputError(f"gymnasium cannot make {environment!r}: {error}") from error


def _made(factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    environment = factory(**options)
    if not isinstance(environment, _gymnasium().Env):
        raise InputError(
            f"{getattr(factory, '__name__', factory)} returned {environment!r}: it has to return a "
            "gymnasium.Env"
        )
    return _to_unit_actions(environment)


def collect_episodes(
    environments: Any,
    policy: Policy,
    *,
    seed: int,
    generator: torch.Generator,
    max_steps: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Episodes:
    """One whole episode in every environment, from its reset.

    One each, not "the first K that end": those would be the short ones. An environment that has
    finished goes on stepping until the longest has ended; nothing of that is recorded. How it goes
    on is its autoreset mode, and each mode has a trap that is handled here:

    - ``NEXT_STEP``: the step after the end only resets (reward 0, action ignored): no transition.
    - ``SAME_STEP``: the observation returned with the end is the *next* episode's first one; the
      last one seen is in ``infos["final_obs"]``.
    - ``DISABLED``: an ended environment must not be stepped: it is reset by mask first.

    Args:
        environments: A gymnasium vector environment.
        policy: Observations ``[k, *observation]`` to a distribution with batch shape ``[k]``.
        seed: Of the environments' own randomness.
        generator: Where actions are drawn from.
        max_steps: Cut episodes off here, as truncated [count]; None: the environment's own limit.
        device: Where the policy lives; the generator must live there too.
        dtype: Of the policy's weights.

    Returns:
        As many episodes as environments.

    Raises:
        InputError: No autoreset mode, or no limit on the length of an episode.
    """
    mode = _autoreset_mode(environments)
    limit = _limit(environments, max_steps)
    observation, _ = environments.reset(seed=seed)
    alive = np.ones(environments.num_envs, dtype=bool)
    ended = truncated = ~alive
    last = np.array(observation)
    steps: list[tuple[Any, Tensor, Any, Any]] = []
    with drawing_from(generator), torch.no_grad():
        while alive.any():
            if mode == "Disabled" and ended.any():
                observation, _ = environments.reset(options={"reset_mask": ended})
            action = policy(_tensor(observation, device, dtype)).sample()
            after, reward, terminated, cut, infos = environments.step(action.cpu().numpy())
            steps.append((observation, action, np.where(alive, reward, 0.0), alive))
            cut = cut | (len(steps) >= limit)
            ended = terminated | cut
            last[alive] = (_seen_last(after, infos) if mode == "SameStep" else after)[alive]
            truncated = truncated | (alive & cut & ~terminated)
            alive = alive & ~ended
            observation = after
    seen, actions, rewards, living = zip(*steps, strict=True)
    return Episodes(
        observations=_tensor(np.stack(seen), device, dtype), actions=torch.stack(actions),
        rewards=_tensor(np.stack(rewards), device, dtype),
        alive=torch.from_numpy(np.stack(living)).to(device),
        truncated=torch.from_numpy(truncated).to(device),
        last_observations=_tensor(last, device, dtype),
        n_simulated=len(steps) * environments.num_envs,
    )  # fmt: skip


def _seen_last(after: Any, infos: dict[str, Any]) -> Any:
    """Observations after the step, before any reset that the step included."""
    if "_final_obs" not in infos:
        return after
    final = np.array(after)
    for k in np.flatnonzero(infos["_final_obs"]):
        final[k] = infos["final_obs"][k]
    return final


def _autoreset_mode(environments: Any) -> str:
    mode = environments.metadata.get("autoreset_mode")
    name = getattr(mode, "value", mode)
    if name not in ("NextStep", "SameStep", "Disabled"):
        raise InputError(
            f"{environments} does not say how it resets (metadata['autoreset_mode'] is {mode!r}): "
            "set it to a gymnasium.vector.AutoresetMode, or steps between episodes would pass for "
            "transitions"
        )
    return name


def _limit(environments: Any, max_steps: int | None) -> int:
    limit = _own_limit(environments) if max_steps is None else max_steps
    if limit is None or limit < 1:
        raise InputError(
            f"max_steps={limit} for {environments}: it has no time limit of its own, so an episode "
            "might never end. Pass max_steps of at least 1, or wrap the environment in "
            "gymnasium.wrappers.TimeLimit"
        )
    return limit


def _own_limit(environments: Any) -> int | None:
    limit = getattr(getattr(environments, "spec", None), "max_episode_steps", None)
    inner = next(iter(getattr(environments, "envs", ())), None)
    if limit is None and inner is not None and inner.has_wrapper_attr("_max_episode_steps"):
        return inner.get_wrapper_attr("_max_episode_steps")  # of a TimeLimit
    return limit


def _tensor(values: Any, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    """The values where the policy lives, in the dtype of its weights."""
    return torch.as_tensor(np.asarray(values), dtype=dtype, device=device)


def _to_unit_actions(environment: Any) -> Any:
    """Bounded arrays of actions as [−1, 1], clipped; other actions as they are."""
    gymnasium = _gymnasium()
    space = environment.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded():
        return environment
    one = np.ones(space.shape, dtype=space.dtype)
    rescaled = gymnasium.wrappers.RescaleAction(environment, -one, one)
    return gymnasium.wrappers.ClipAction(rescaled)


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtraError("gymnasium", "rl") from error
    return gymnasium
