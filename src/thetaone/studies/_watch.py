"""Tells whoever watches a job how far each of its phases is."""

import contextlib
import logging
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from thetaone.records import Pace, Progress, ProgressEvent, format_bytes
from thetaone.studies.target import OnStep

logger = logging.getLogger("thetaone")


def logged(progress: Progress | None) -> Progress:
    """The caller's callback, and a line in the log ``thetaone`` when a phase begins and ends.

    Between these one in 30 s, with what is done, of how much, and the time left.
    """
    pace = Pace()

    def tell(event: ProgressEvent) -> None:
        line = pace.line(event)
        if line is not None:
            logger.info(line)
        if progress is not None:
            progress(event)

    return tell


def most_bytes() -> int:
    """The most memory held so far: by torch on the GPU, else by this process [bytes]."""
    if torch.cuda.is_available() and (held := torch.cuda.max_memory_allocated()):
        return held
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB


@dataclass(frozen=True)
class Watch:
    """The caller's callback, if there is one."""

    progress: Progress | None

    def __call__(self, phase: str, done: int, total: int, message: str) -> None:
        """Tell that so many parts of a phase are done."""
        if self.progress is not None:
            self.progress(ProgressEvent(phase=phase, n_done=done, n_total=total, message=message))

    @contextlib.contextmanager
    def phase(self, phase: str, message: str) -> Iterator[None]:
        """A phase of one part: tell of its beginning and its end."""
        self(phase, 0, 1, message)
        yield
        self(phase, 1, 1, "done")

    def renamed(self, phase: str) -> Progress:
        """The callback of a part of the job, whose events carry this job's phase."""

        def tell(event: ProgressEvent) -> None:
            if self.progress is not None:
                self.progress(event.model_copy(update={"phase": phase}))

        return tell

    def steps(self, phase: str, n_steps: int) -> OnStep:
        """What is told of a training: loss, tokens a second, memory at its most."""

        def tell(done: int, losses: list[float], tokens: float) -> None:
            self(
                phase, done, n_steps,
                f"loss {losses[-1]:.3f}, {tokens:,.0f} tokens/s, {format_bytes(most_bytes())}",
            )  # fmt: skip

        return tell
