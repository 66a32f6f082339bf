"""What a running job tells whoever watches it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from thetaone.records._base import Record
from thetaone.records._units import format_seconds
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

EVERY_SECONDS = 30.0  # between two lines of a log


@dataclass(slots=True)
class _Phase:
    """When a phase began, with how much done, and when it last had a line."""

    began: float
    n_before: int
    spoke: float

    def left(self, event: ProgressEvent, now: float) -> str:
        """Time left in words; empty when nothing was done yet, or nothing is left to do."""
        done, ahead = event.n_done - self.n_before, event.n_total - event.n_done
        if done < 1 or ahead < 1:
            return ""
        seconds = (now - self.began) / done * ahead  # a guess: two digits are enough
        return f"{format_seconds(float(f'{seconds:.2g}'))} left"


class Pace:
    """A job in lines of text: the first and the last word of each phase, and one in 30 s between.

    Args:
        clock: Seconds, never set back.

    Examples:
        >>> pace = Pace(clock=iter([0.0, 10.0, 40.0]).__next__)
        >>> [pace.line(ProgressEvent(n_done=n, n_total=9, message="go")) for n in (0, 1, 4)]
        ['sweep: 0/9 go', None, 'sweep: 4/9 go, 50 s left']
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phases: dict[str, _Phase] = {}

    def line(self, event: ProgressEvent) -> str | None:
        """What to say of an event; None: nothing."""
        now = self._clock()
        phase = self._phases.get(event.phase)
        text = f"{event.phase}: {event.n_done}/{event.n_total} {event.message}"
        if phase is None:
            self._phases[event.phase] = _Phase(now, event.n_done, now)
            return text
        ended = event.n_done == event.n_total
        if not ended and now - phase.spoke < EVERY_SECONDS:
            return None
        phase.spoke = now
        left = phase.left(event, now)
        return f"{text}, {left}" if left else text

    def left(self, event: ProgressEvent) -> str:
        """Time left of the event's phase at its pace so far; empty before there is one."""
        now = self._clock()
        phase = self._phases.setdefault(event.phase, _Phase(now, event.n_done, now))
        return phase.left(event, now)
