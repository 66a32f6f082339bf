"""Verdicts on the level of the loss, on sweeps whose truth is a formula."""

import math
import random

import pytest

from thetaone.records import EngineDecision, LevelVerdict, SweepResult, Trial, TrialSpec
from thetaone.studies.target import _levels


def judged(verdict: LevelVerdict | None) -> LevelVerdict:
    assert verdict is not None
    return verdict


def against_sp(*arguments) -> LevelVerdict:
    return judged(_levels.against_sp(*arguments))


def wider_is_better(*arguments) -> LevelVerdict:
    return judged(_levels.wider_is_better(*arguments))


def target_level(*arguments) -> LevelVerdict:
    return judged(_levels.target_level(*arguments))


RATES = [2.0**power for power in range(-10, -4)]
BEST = 2.0**-7


def sweep(
    level, *, label="mup", seeds=(0, 1, 2), noise=0.001, bowl=0.05, widths=(32, 64)
) -> SweepResult:
    """Final loss: ``level(width)`` plus a bowl, a part that each seed shares, and its own noise."""
    draw = random.Random(label)
    trials = []
    for width in widths:
        for lr in RATES:
            for seed in seeds:
                loss = level(width) + bowl * math.log2(lr / BEST) ** 2 + 0.2 * seed
                spec = TrialSpec(width=width, lr=lr, seed=seed, n_steps=1, rule=label)
                losses = (loss + draw.gauss(0, noise),)
                trials.append(Trial(spec=spec, losses=losses, status="finished"))
    return SweepResult(
        task="made", parametrization=label, optimizer="AdamW", base_width=64,
        trials=tuple(trials), engine=EngineDecision(engine="serial", reason=""),
        n_trained=len(trials), n_reused=0, wall_seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("excess", "verdict"), [(0.0, "holds"), (-0.3, "holds"), (0.3, "fails"), (0.022, "undecided")]
)
def test_mup_against_sp_is_judged_by_its_interval(excess: float, verdict: str) -> None:
    """SP ends at 2.0 plus the seeds' shared 0.2 on average: 1 % is 0.022."""
    mup = sweep(lambda width: 2.0 + excess)
    row = against_sp(mup, sweep(lambda width: 2.0, label="sp"), BEST * 1.2)
    assert row.verdict == verdict
    assert row.difference == pytest.approx(excess, abs=0.01)
    assert row.reference == pytest.approx(2.2, abs=0.01)
    assert bool(row.advice) == (verdict != "holds")


def test_what_seeds_share_does_not_blur_the_difference() -> None:
    row = against_sp(sweep(lambda w: 2.0), sweep(lambda w: 2.0, label="sp"), BEST)
    assert row.stderr < 0.005  # the seeds themselves lie 0.2 apart


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "holds"), (-0.1, "fails")])
def test_wider_is_better_is_computed(gain: float, verdict: str) -> None:
    row = wider_is_better(sweep(lambda width: 3.0 - gain * math.log2(width)), BEST)
    assert row.verdict == verdict
    assert row.difference == pytest.approx(-gain, abs=0.01)


def test_one_seed_decides_nothing() -> None:
    row = wider_is_better(sweep(lambda width: 3.0 - 0.1 * math.log2(width), seeds=(0,)), BEST)
    assert row.verdict == "undecided"
    assert row.interval == (-math.inf, math.inf)


@pytest.mark.parametrize(("loss", "verdict"), [(1.8, "holds"), (2.5, "fails")])
def test_the_target_against_its_widest_proxy(loss: float, verdict: str) -> None:
    mup = sweep(lambda width: 2.0)
    spec = TrialSpec(width=256, lr=BEST, seed=0, n_steps=1, rule="mup")
    row = target_level(mup, BEST, Trial(spec=spec, losses=(loss,), status="finished"))
    assert row.verdict == verdict
    assert (row.loss, row.reference) == (loss, pytest.approx(2.0, abs=0.01))


def test_intervals_cover_a_true_difference() -> None:
    """95 % intervals of 150 comparisons with three seeds; fewer than 134 come once in 10^4."""
    covered = 0
    for index in range(150):
        shift = random.Random(index).gauss(0, 0.1)
        mup = sweep(lambda width, s=shift: 2.0 + s, label=f"mup{index}", noise=0.05, bowl=0.6)
        sp = sweep(lambda width: 2.0, label=f"sp{index}", noise=0.05, bowl=0.6)
        low, high = against_sp(mup, sp, BEST).interval
        covered += low <= shift <= high
    assert covered >= 134
