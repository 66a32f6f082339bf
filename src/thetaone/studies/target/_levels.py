"""The level of the loss: µP against SP, wide against narrow, the target against its proxies.

Losses are compared seed by seed: trainings of one seed see the same batches, so that the noise they
share cancels. Few seeds say little about their scatter; it is pooled over like comparisons, a rate
or a size apart, taking it to be the same in each.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thetaone.records import LevelVerdict, Standing, SweepResult, Trial, student_interval

TOLERANCE = 0.01  # of the loss: two levels closer than this are one
NEAR = 1.0 + 1e-9  # octaves around the best rate
CONFIDENCE = 0.95
UNDECIDED = "these seeds do not tell: add seeds, or steps"

Losses = Mapping[int, float]  # seed -> final loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Two trainings of the same seeds.

    Attributes:
        what: The one that is judged, in words.
        against: The other, in words.
        losses: Its final losses.
        reference: The other's.
    """

    what: str
    against: str
    losses: Losses
    reference: Losses

    @property
    def differences(self) -> NDArray[np.float64]:
        """Loss minus reference of every seed that both have."""
        seeds = sorted(self.losses.keys() & self.reference.keys())
        return np.array([self.losses[seed] - self.reference[seed] for seed in seeds])


def levels(mup: SweepResult, sp: SweepResult, lr: float, target: Trial) -> tuple[LevelVerdict, ...]:
    """The three verdicts on the level of the loss.

    Args:
        mup: The sweep in µP.
        sp: The sweep in SP.
        lr: The transferred rate.
        target: The trained target.
    """
    verdicts = (against_sp(mup, sp, lr), wider_is_better(mup, lr), target_level(mup, lr, target))
    return tuple(verdict for verdict in verdicts if verdict is not None)


def against_sp(mup: SweepResult, sp: SweepResult, lr: float) -> LevelVerdict | None:
    """At the widest width swept: µP at the transferred rate against SP at its own best rate.

    Both at the nearest rate of the grid. The scatter of the difference is pooled over the rates one
    octave beside, taken in step.
    """
    width = max(mup.widths)
    ours, theirs = _rates(mup, width), _rates(sp, width)
    if not ours or not theirs:
        return None
    rate = _nearest(ours, lr)
    best = min(theirs, key=lambda other: _mean(theirs[other]))
    pairs = _in_step(ours, theirs, rate, best)
    pairing = Pairing(
        what=f"µP at rate {rate:.3g}, {mup.axis} {width}",
        against=f"SP at its best rate, {best:.3g}",
        losses=ours[rate], reference=theirs[best],
    )  # fmt: skip
    return _judge(
        "µP at the transferred rate is as good as SP at its own best", pairing, pairs,
        tolerance=TOLERANCE * abs(_mean(theirs[best])),
        advice=f"the small models lose to plain PyTorch at {mup.axis} {width}: anchor at the "
        "target, or look at the readout's and the embedding's initial values",
    )  # fmt: skip


def wider_is_better(mup: SweepResult, lr: float) -> LevelVerdict | None:
    """At each rate within an octave of the best: every width against the next narrower one.

    The verdict is that of the worst pair; its interval allows for the number of pairs.
    """
    by_width = {width: _rates(mup, width) for width in mup.widths}
    pairs = [
        Pairing(
            what=f"{mup.axis} {wide} at rate {rate:.3g}", against=f"{mup.axis} {narrow}",
            losses=by_width[wide][rate], reference=by_width[narrow][rate],
        )
        for narrow, wide in zip(mup.widths, mup.widths[1:], strict=False)
        for rate in by_width[wide]
        if rate in by_width[narrow] and abs(math.log2(rate / lr)) <= NEAR
    ]  # fmt: skip
    if not pairs:
        return None
    worst = max(pairs, key=lambda pair: float(pair.differences.mean()))
    return _judge(
        "wider is better at every rate near the best", worst, pairs,
        tolerance=0.0, comparisons=len(pairs),
        advice=f"{worst.what} ends above {worst.against}: the narrow models have not trained long "
        "enough to show it, or the rate is too high for the wide one; try more steps or seeds",
    )  # fmt: skip


def target_level(mup: SweepResult, lr: float, target: Trial) -> LevelVerdict | None:
    """The target, trained once, against the widest proxy from the same seed at the same rate."""
    width = max(mup.widths)
    rates = _rates(mup, width)
    if not rates or target.status != "finished" or mup.size(target) == width:
        return None
    rate = _nearest(rates, lr)
    if target.seed not in rates[rate]:
        return None
    pairs = [
        Pairing(what="", against="", losses=rates[a], reference=rates[b])
        for a, b in zip(sorted(rates), sorted(rates)[1:], strict=False)
        if abs(math.log2(a / lr)) <= NEAR and abs(math.log2(b / lr)) <= NEAR
    ]
    pairing = Pairing(
        what=f"the target, {mup.axis} {mup.size(target)}",
        against=f"{mup.axis} {width} at rate {rate:.3g}",
        losses={target.seed: target.final_loss}, reference=rates[rate],
    )  # fmt: skip
    return _judge(
        "the target is better than the widest proxy", pairing, pairs, tolerance=0.0,
        advice="the large model gains nothing over a small one at this rate: train it for more "
        "steps, or sweep a rate lower at its own size",
    )  # fmt: skip


def _judge(
    claim: str,
    pairing: Pairing,
    like: Iterable[Pairing],
    *,
    tolerance: float,
    advice: str,
    comparisons: int = 1,
) -> LevelVerdict:
    """Mean difference, its interval from the pooled scatter, and where that lies."""
    differences = pairing.differences
    difference = float(differences.mean())
    spread, freedom = _pooled([pair.differences for pair in like])
    stderr = spread / len(differences) ** 0.5
    confidence = 1 - (1 - CONFIDENCE) / comparisons
    interval = (-math.inf, math.inf)
    if freedom:
        interval = student_interval(difference, stderr, freedom, confidence)
    verdict = _standing(interval, tolerance)
    return LevelVerdict(
        claim=claim, what=pairing.what, against=pairing.against, loss=_mean(pairing.losses),
        reference=_mean({seed: pairing.reference[seed] for seed in pairing.losses}),
        difference=difference, stderr=stderr if freedom else math.nan, interval=interval,
        tolerance=tolerance, verdict=verdict,
        advice={"holds": "", "fails": advice, "undecided": UNDECIDED}[verdict],
    )  # fmt: skip


def _standing(interval: tuple[float, float], tolerance: float) -> Standing:
    if interval[1] <= tolerance:
        return "holds"
    return "fails" if interval[0] > tolerance else "undecided"


def _pooled(groups: Sequence[NDArray[np.float64]]) -> tuple[float, int]:
    """Pooled standard deviation within groups, and its degrees of freedom."""
    usable = [g for g in groups if len(g) > 1 and np.isfinite(g).all()]
    freedom = sum(len(g) - 1 for g in usable)
    if not freedom:
        return math.nan, 0
    return math.sqrt(sum(float(((g - g.mean()) ** 2).sum()) for g in usable) / freedom), freedom


def _in_step(
    ours: Mapping[float, Losses], theirs: Mapping[float, Losses], rate: float, best: float
) -> list[Pairing]:
    """The pairs of rates as far from the one best rate as from the other, within an octave."""
    offsets = {round(math.log2(r / rate), 6): r for r in ours}
    others = {round(math.log2(r / best), 6): r for r in theirs}
    shared = [offset for offset in offsets.keys() & others.keys() if abs(offset) <= NEAR]
    return [
        Pairing(what="", against="", losses=ours[offsets[offset]], reference=theirs[others[offset]])
        for offset in shared
    ]


def _rates(sweep: SweepResult, width: int) -> dict[float, Losses]:
    """Rate -> final loss of every seed, where all of them finished."""
    trials: dict[float, list[Trial]] = {}
    for trial in sweep.judged:
        if sweep.size(trial) == width:
            trials.setdefault(trial.lr, []).append(trial)
    return {
        lr: {trial.seed: trial.final_loss for trial in of_rate}
        for lr, of_rate in sorted(trials.items())
        if all(trial.status == "finished" for trial in of_rate)
    }


def _nearest(rates: Mapping[float, Any], lr: float) -> float:
    return min(rates, key=lambda rate: abs(math.log2(rate / lr)))


def _mean(losses: Losses) -> float:
    return math.fsum(losses.values()) / len(losses)
