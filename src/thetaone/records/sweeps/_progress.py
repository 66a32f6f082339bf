"""What a running job tells whoever watches it."""

from collections.abc import Callable
from typing import Literal

from thetaone.records._base import Record
from thetaone.records.sweeps._trial import Trial


class ProgressEvent(Record):
    """What a running job reports to a progress bar, a log or a callback.

    Attributes:
        phase: The part of the job: ``"sweep"``, ``"memory"``, ``"target"``, …
        kind: ``"planned"`` (once, when totals are known), ``"engine"`` (how trials will run),
            ``"trial"`` (after each trial trained), ``"note"`` (something worth a word: stored
            trials left out), ``"step"`` (any other part done).
        n_done: Parts done or reused so far [count].
        n_total: Parts of the phase [count].
        message: One line.
        trial: The trial just ended, for ``"trial"``.
    """

    phase: str = "sweep"
    kind: Literal["planned", "engine", "trial", "note", "step"] = "step"
    n_done: int
    n_total: int
    message: str
    trial: Trial | None = None


Progress = Callable[[ProgressEvent], None]
