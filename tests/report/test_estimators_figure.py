"""The bake-off of estimators: verdicts by shape, and an infinite efficiency is no crash."""

import math

from thetaone.records.estimates import EstimatorComparison, EstimatorRow, Verdict
from thetaone.report.figures.estimators import estimators_figure


def row(name: str, bias_z: float, efficiency: float, verdict: Verdict) -> EstimatorRow:
    return EstimatorRow(
        estimator=name, mean=(1.0,), mean_stderr=(0.1,), bias_z=bias_z, bias_limit=4.5,
        resolution=0.02, variance=1.0 / efficiency, variance_stderr=0.1, evaluations=64,
        seconds=1.0, seconds_stderr=0.01, efficiency=efficiency, efficiency_stderr=1.0,
        verdict=verdict,
    )  # fmt: skip


COMPARISON = EstimatorComparison(
    problem="E x²",
    coordinates=("µ",),
    reference=(2.0,),
    reference_stderr=(0.0,),
    reference_kind="exact",
    n_samples=64,
    repeats=100,
    rows=(
        row("ScoreFunction", 0.8, 12.0, "agrees"),
        row("Pathwise", -1.1, math.inf, "agrees"),
        row("StraightThrough", 31.0, 900.0, "biased"),
    ),
    recommendation="Pathwise",
)


def test_bias_and_efficiency_stand_in_the_rows_of_their_estimator() -> None:
    bias, efficiency = estimators_figure(COMPARISON).panels
    good, bad = bias.series
    assert (good.x, good.y) == ((0.8, -1.1), (2.0, 1.0))
    assert (bad.x, bad.y, bad.symbol) == ((31.0,), (0.0,), "cross")
    assert efficiency.series[0].x == (12.0,)  # an infinite efficiency has no place on the axis
    assert bias.x.range[1] > 31.0


def test_the_alternative_text_gives_verdicts_and_the_recommendation() -> None:
    alt = estimators_figure(COMPARISON).alt
    assert "StraightThrough biased" in alt
    assert "Recommended: Pathwise." in alt
