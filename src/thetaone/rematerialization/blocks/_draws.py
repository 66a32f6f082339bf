"""Whether a section draws from the global generators, seen once for all of its regions."""

from collections.abc import Sequence
from typing import Any

import torch

from thetaone.rematerialization.blocks._ambient import Ambient
from thetaone.rematerialization.blocks._quiet import overheard
from thetaone.rematerialization.blocks.state import (
    Watch,
    generator_state,
    global_generators,
    same_generator_state,
)

States = list[tuple[Any, Any]]


class Draws:
    """Draws of a section: where its generators end where they began, no recomputation draws.

    Code that could put a generator back after a draw is known by its names: then each region comes
    back to the states that it found, as where something is drawn.

    Args:
        device: Where the section's activations are.
        ambient: In which it runs.
    """

    def __init__(self, device: torch.device, ambient: Ambient) -> None:
        self.ambient, self.none = ambient, False
        self.generators = global_generators(device)
        self.before = self._states()
        self.noted: list[States] = []

    def note(self) -> States:
        """The states that a region finds; empty once nothing was drawn."""
        states = [] if self.none else self._states()
        self.noted.append(states)
        return states

    def settle(self, watches: Sequence[Watch]) -> None:
        """The section has run to its end: forget the states that no recomputation needs."""
        if overheard(self.ambient) or any(watch.reached.rewinds for watch in watches):
            return
        now = [state for _, state in self._states()]
        if all(map(same_generator_state, (state for _, state in self.before), now)):
            self.none = True
            for states in self.noted:
                states.clear()

    def _states(self) -> States:
        return [(one, generator_state(one)) for one in self.generators]
