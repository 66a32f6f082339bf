"""Random generators as one kind of thing: torch's, NumPy's and Python's are read and set alike."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

GENERATORS = (
    torch.Generator,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.RandomState,
    random.Random,
)

# what code names that reads or sets the state of a generator: it may draw and put it back
_REWINDING = (
    "fork_rng get_rng_state set_rng_state get_state set_state getstate setstate state clone_state "
    "initial_seed seed manual_seed bit_generator graphsafe_get_state graphsafe_set_state"
)
REWINDING = frozenset(_REWINDING.split())


def replayable(generator: Any) -> bool:
    """Whether a generator has a state to come back to; the operating system's has none."""
    return not isinstance(generator, random.SystemRandom)


def generator_state(generator: Any) -> Any:
    """A generator's state, for ``same_generator_state`` and ``set_generator_state``."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.BitGenerator):
        return generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def set_generator_state(generator: Any, state: Any) -> None:
    """Put a generator where it was when ``generator_state`` read it."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


def same_generator_state(before: Any, after: Any) -> bool:
    """Whether no number was drawn between two states of one generator."""
    if isinstance(before, torch.Tensor):
        return before.numpy().tobytes() == after.numpy().tobytes()  # torch.equal takes thrice that
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(
            same_generator_state(value, after[name]) for name, value in before.items()
        )
    return before == after


def global_generators(device: torch.device) -> list[torch.Generator]:
    """Torch's own generators that code on a device may draw from: the CPU's and the device's."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


@contextmanager
def restored_generators(generators: Iterable[Any]) -> Iterator[None]:
    """Put generators back where they were on exit."""
    states = [(generator, generator_state(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            set_generator_state(generator, state)
