"""The bake-off of estimators: verdicts by shape, and an infinite efficiency is no crash."""

import math
import re

from thetaone.records import EstimatorBakeoff, EstimatorComparison, EstimatorRow, Verdict
from thetaone.report import describe, render
from thetaone.report.figures import estimators_figure
from thetaone.report.page._contents import Table
from thetaone.report.page._contents import Verdict as Standing


def row(
    name: str, bias_z: float, efficiency: float, verdict: Verdict, declared: str = "unbiased"
) -> EstimatorRow:
    return EstimatorRow(
        declared=declared, unbiased=declared == "unbiased", estimator=name,
        mean=(1.0,), mean_stderr=(0.1,), bias_z=bias_z, bias_limit=4.5,
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
        row("Antithetic(Pathwise)", 31.0, 900.0, "biased"),
        row("StraightThrough", 0.4, 70.0, "too noisy to tell", "biased: exact only for affine f"),
    ),
    flags=("Antithetic(Pathwise) disagrees",),
    skipped=(("ARM", "Normal is not Bernoulli"),),
    recommendation="Pathwise",
)


def test_bias_and_efficiency_stand_in_the_rows_of_their_estimator() -> None:
    bias, efficiency = estimators_figure(COMPARISON).panels
    good, declared, bad = bias.series
    assert (good.x, good.y) == ((0.8, -1.1), (3.0, 2.0))
    assert (bad.x, bad.y, bad.symbol) == ((31.0,), (1.0,), "cross")
    # labelled biased although this comparison could not see it
    assert (declared.name, declared.x, declared.y) == ("biased, and says so", (0.4,), (0.0,))
    assert "biased: exact only for affine f" in declared.notes[0]
    assert bias.x.range[1] > 31.0
    first = efficiency.series[0]
    assert (first.x, first.low, first.high) == ((12.0,), (11.0,), (13.0,))
    (label,) = efficiency.labels  # an infinite efficiency has no place on the axis
    assert (label.text, label.y) == ("no noise", 2.0)


def test_the_alternative_text_gives_verdicts_and_the_recommendation() -> None:
    alt = estimators_figure(COMPARISON).alt
    assert "Antithetic(Pathwise) biased" in alt
    assert "Recommended: Pathwise." in alt


def test_the_page_has_every_number_and_every_warning() -> None:
    bakeoff = EstimatorBakeoff(
        comparisons=(COMPARISON, COMPARISON.model_copy(update={"problem": "other"})),
        command="thetaone gradients one other", environment={"torch": "2"}, wall_seconds=2.0,
    )  # fmt: skip
    page = describe(bakeoff)
    assert [section.nav for section in page.sections[:2]] == ["E x²", "other"]
    assert [fact.value for fact in page.facts] == ["Pathwise", "Pathwise"]
    claim, measured, verdict = page.verdicts.rows[0]
    assert claim == "E x²: what claims to be unbiased is"
    assert measured == "2 of 3 agree with the closed form; off: Antithetic(Pathwise)"
    assert verdict == Standing("fails", "some are biased")
    assert "2 of those that claim to be unbiased are seen to be biased" in page.lead
    assert page.sections[0].text[1].text == "Antithetic(Pathwise) disagrees."
    _, table, skipped = page.sections[0].blocks
    assert isinstance(table, Table)
    assert isinstance(skipped, Table)
    assert table.rows[0][:4] == ("ScoreFunction", Standing("holds", "agrees"), "+0.8", "2.0%")
    assert table.rows[0][7] == "12 ± 1"
    assert skipped.rows == (("ARM", "Normal is not Bernoulli"),)
    text = render(bakeoff)
    assert "thetaone gradients one other" in text
    ids = re.findall(r'<(?:figure|section) id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_too_noisy_to_tell_is_not_called_untrustworthy() -> None:
    noisy = COMPARISON.model_copy(
        update={"rows": (row("Pathwise", 0.1, 2.0, "too noisy to tell"),)}
    )
    names = {line.name for panel in estimators_figure(noisy).panels for line in panel.series}
    assert names == {"too noisy to tell"}
    page = describe(
        EstimatorBakeoff(comparisons=(noisy.model_copy(update={"recommendation": ""}),))
    )
    assert "trusted" not in page.facts[0].note
