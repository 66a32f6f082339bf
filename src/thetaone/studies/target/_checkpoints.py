"""Checkpoints of a training: written beside the last one, which is replaced at once.

So a full disk or a killed process leaves the last good one.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import CheckpointError, InputError
from thetaone.sweeps import GeneratorStates

CHECKPOINT = "checkpoint.pt"
MINUTES = 5.0  # between two checkpoints


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where checkpoints of one recipe are kept, and how often they are written.

    Attributes:
        folder: Its ``checkpoint.pt``.
        recipe: Fingerprint of the recipe: a checkpoint of another one is refused.
        minutes: Between two of them [min].
    """

    folder: Path
    recipe: str
    minutes: float = MINUTES

    def __post_init__(self) -> None:
        if not self.minutes >= 0:
            raise InputError(f"minutes between checkpoints={self.minutes}: need 0 or more, e.g. 5")

    @property
    def path(self) -> Path:
        """The last good checkpoint."""
        return self.folder / CHECKPOINT

    def load(self) -> dict[str, Any] | None:
        """The last good checkpoint; None when there is none.

        Raises:
            CheckpointError: It cannot be read, or is of another recipe.
        """
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, weights_only=True)
        except Exception as error:  # whatever a damaged pickle raises
            raise CheckpointError(
                f"{self.path} cannot be read: {error}. Remove it to train from the start"
            ) from error
        if state["recipe"] != self.recipe:
            raise CheckpointError(
                f"{self.path} is of another recipe ({state['recipe']}, this one is {self.recipe}): "
                "remove it to train from the start, or use another folder"
            )
        return state

    def set_aside(self) -> Path | None:
        """Rename a checkpoint that is damaged or of another recipe; where it lies now, or None."""
        try:
            self.load()
        except CheckpointError:
            kept = self.path.with_name(f"before-{time.strftime('%Y%m%d-%H%M%S')}-{CHECKPOINT}")
            return self.path.replace(kept)
        return None

    def write(self, state: dict[str, Any]) -> None:
        """Replace the last checkpoint, all or nothing.

        Raises:
            CheckpointError: The disk does not take it; the last one stays.
        """
        fresh = self.path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                torch.save({"recipe": self.recipe, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            fresh.unlink(missing_ok=True)
            kept = "the last one stays" if self.path.exists() else "there is none yet"
            raise CheckpointError(
                f"{self.path} cannot be written: {error}; {kept}. Free some space and go on with "
                "the same command"
            ) from error


def unsaved(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out, which training may change all the same."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}


def stored(random: GeneratorStates) -> dict[str, Any]:
    """States of the generators as ``torch.load`` takes them with ``weights_only``."""
    kind, keys, *rest = random.numpy
    return {
        "torch_cpu": random.torch_cpu, "torch_cuda": random.torch_cuda,
        "numpy": (kind, torch.from_numpy(keys.astype("int64")), *rest), "python": random.python,
    }  # fmt: skip


def generators(stored: dict[str, Any]) -> GeneratorStates:
    """States of the generators, from a checkpoint."""
    kind, keys, *rest = stored["numpy"]
    numpy = (kind, keys.numpy().astype("uint32"), *rest)
    return GeneratorStates(
        stored["torch_cpu"], tuple(stored["torch_cuda"]), numpy, stored["python"]
    )
