"""Verdicts on the level of the loss, beside those on the position of the optimum."""

from typing import Literal

from thetaone.records._base import Record
from thetaone.records._words import interval_words

Standing = Literal["holds", "fails", "undecided"]


class LevelVerdict(Record):
    """One loss against another, seed by seed.

    Attributes:
        claim: What should hold.
        what: The training that is judged, e.g. ``µP at rate 0.0039, width 128``.
        against: What it is compared with.
        loss: Mean over the seeds of the judged training's final loss.
        reference: Same, of the other one.
        difference: Mean over the seeds of loss minus reference.
        stderr: Its standard error; NaN where the seeds do not tell.
        interval: 95 % interval of the difference.
        tolerance: Largest difference with which the claim still holds.
        verdict: ``holds`` when the whole interval is within the tolerance, ``fails`` when it is
            beyond, else ``undecided``.
        advice: What to do; empty when the claim holds.
    """

    claim: str
    what: str
    against: str
    loss: float
    reference: float
    difference: float
    stderr: float
    interval: tuple[float, float]
    tolerance: float
    verdict: Standing
    advice: str = ""

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.what} {self.loss:.3f}, {self.against} {self.reference:.3f} "
            f"({self.difference:+.3f}, interval {interval_words(*self.interval, '+.3f')})"
        )
