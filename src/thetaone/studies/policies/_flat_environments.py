"""Environments whose observations and actions, of whatever space, are vectors of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from thetaone.errors import InputError


class FlatEnvironments:
    """A gymnasium vector environment seen through vectors: what a small network takes and gives.

    Observations ``[n, D]``: arrays raveled, a choice as one-hot, the parts of a Dict or Tuple side
    by side. Actions ``[n, K]``: one number a choice, bit or coordinate, in the same order; bounded
    coordinates are clipped to [−1, 1] and stretched to their bounds.

    Args:
        environments: A gymnasium vector environment.

    Raises:
        InputError: A part of a space has no fixed number of numbers (text, sequences, graphs).
    """

    def __init__(self, environments: Any) -> None:
        self.inner = environments
        self.num_envs, self.metadata = environments.num_envs, environments.metadata
        self.spec = environments.spec
        self.envs: Sequence[Any] = getattr(environments, "envs", ())
        self.n_observed = sum(map(n_one_hot, leaves(environments.single_observation_space)))
        self.action_leaves = leaves(environments.single_action_space)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """As the inner environments, observations as vectors."""
        observation, infos = self.inner.reset(**options)
        return self._seen(observation), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the inner environments, actions and observations as vectors."""
        numbers = iter(np.split(actions, np.cumsum([*map(n_numbers, self.action_leaves)]), axis=1))
        acted = _structured(self.inner.single_action_space, numbers)
        observation, *outcome, infos = self.inner.step(acted)
        if "final_obs" in infos:
            ended = np.flatnonzero(infos["_final_obs"])
            final = np.empty(self.num_envs, dtype=object)
            for k in ended:
                final[k] = self._seen(_batch_of_one(infos["final_obs"][k]))[0]
            infos = infos | {"final_obs": final}
        return self._seen(observation), *outcome, infos

    def _seen(self, observation: Any) -> Any:
        return np.concatenate(_flat(self.inner.single_observation_space, observation), axis=1)

    def __repr__(self) -> str:
        return repr(self.inner)


def leaves(space: Any, where: str = "") -> list[Any]:
    """Parts of a space that hold no further spaces, in order.

    Raises:
        InputError: A part that is neither a choice, nor bits, nor an array.
    """
    parts = _parts(space)
    if parts is not None:
        return [leaf for key, part in parts for leaf in leaves(part, f"{where}[{key!r}]")]
    if not (hasattr(space, "n") or hasattr(space, "nvec") or hasattr(space, "low")):
        raise InputError(
            f"{where or 'the space'} is {space}: a network takes and gives Discrete, MultiDiscrete,"
            " MultiBinary and Box spaces, and Dict and Tuple of them. Wrap the environment"
        )
    return [space]


def choices(leaf: Any) -> Sequence[int]:
    """Options of each choice of a leaf; empty for bits and arrays."""
    if hasattr(leaf, "nvec"):
        return [int(n) for n in np.ravel(leaf.nvec)]
    return [int(leaf.n)] if hasattr(leaf, "start") else []


def n_numbers(leaf: Any) -> int:
    """Numbers that name one point of a leaf [count]."""
    return len(choices(leaf)) or int(np.prod(leaf.shape))


def n_one_hot(leaf: Any) -> int:
    """As ``n_numbers``, each choice as one-hot [count]."""
    return sum(choices(leaf)) or int(np.prod(leaf.shape))


def _parts(space: Any) -> list[tuple[Any, Any]] | None:
    inner: Any = getattr(space, "spaces", None)
    if isinstance(inner, dict):
        return list(inner.items())
    if isinstance(inner, tuple) and type(space).__name__ != "OneOf":
        return list(enumerate(inner))
    return None


def _flat(space: Any, batch: Any) -> list[Any]:
    """Float arrays ``[n, k]``, one a leaf."""
    parts = _parts(space)
    if parts is not None:
        return [array for key, part in parts for array in _flat(part, batch[key])]
    rows = np.asarray(batch).reshape(len(batch), -1)
    options = choices(space)
    if not options:
        return [rows.astype(np.float32)]
    indices = (rows - np.ravel(space.start)).astype(np.int64)
    hot = [np.eye(n, dtype=np.float32)[indices[:, i]] for i, n in enumerate(options)]
    return [np.concatenate(hot, axis=1)]


def _structured(space: Any, numbers: Any) -> Any:
    """The batch of actions that the next of the ``[n, k]`` arrays stand for."""
    parts = _parts(space)
    if parts is not None:
        inner = {key: _structured(part, numbers) for key, part in parts}
        return inner if isinstance(space.spaces, dict) else tuple(inner.values())
    rows = next(numbers)
    if choices(space):
        rows = np.rint(rows) + np.ravel(space.start)
    elif hasattr(space, "low") and np.isfinite(space.low).all() and np.isfinite(space.high).all():
        low, high = np.ravel(space.low), np.ravel(space.high)
        rows = low + (np.clip(rows, -1, 1) + 1) / 2 * (high - low)
    return rows.reshape(-1, *space.shape).astype(space.dtype)


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _batch_of_one(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_batch_of_one(part) for part in observation)
    return np.asarray(observation)[None]
