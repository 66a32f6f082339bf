"""What a disk did not take or give back, told once a step and not once a file."""

import warnings
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Loss:
    """Failures of one kind since they were last told."""

    count: int = 0
    size: int = 0
    error: str = ""

    def add(self, size: int, error: OSError) -> None:
        """Count one more."""
        self.count, self.size, self.error = self.count + 1, self.size + size, str(error)


class Losses:
    """Failures of a disk tier.

    Args:
        path: Of the tier, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.refused, self.lost = path, Loss(), Loss()
        self.told = False  # whether this step's first loss was told at once

    def note_refused(self, size: int, error: OSError) -> None:
        """An activation could not be written."""
        self.refused.add(size, error)

    def note_lost(self, size: int, error: OSError) -> None:
        """An activation could not be read back; the first of a step is told at once."""
        self.lost.add(size, error)
        if not self.told:
            self.told = True
            self._tell_lost()

    def tell(self) -> None:
        """Say in one sentence what was refused, and what else was lost."""
        refused, self.refused = self.refused, Loss()
        if refused.count:
            warnings.warn(
                f"the disk tier in {self.path} took no {_activations(refused)}: {refused.error}. "
                "They stay in memory, beyond the budget",
                RuntimeWarning,
                stacklevel=3,
            )
        if self.lost.count:
            self._tell_lost()
        self.told = False

    def _tell_lost(self) -> None:
        lost, self.lost = self.lost, Loss()
        warnings.warn(
            f"the disk tier in {self.path} lost {_activations(lost)}: {lost.error}. They are "
            "computed again",
            RuntimeWarning,
            stacklevel=4,
        )


def _activations(loss: Loss) -> str:
    number = "one activation" if loss.count == 1 else f"{loss.count:,} activations"
    return f"{number} of {loss.size:,} bytes"
