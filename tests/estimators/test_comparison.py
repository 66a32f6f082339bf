"""The comparison finds planted bias, keeps the sound ones, and names what to take."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D

import thetaone as t1
from thetaone.errors import EstimatorError, InputError
from thetaone.estimators import (
    DisARM,
    GumbelSoftmax,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
    StraightThrough,
)
from thetaone.estimators.judging import _problems as known
from thetaone.records import EstimatorComparison


def compare(problem: known.Problem, **options: Any) -> EstimatorComparison:
    options = {"n_samples": 64, "repeats": 500, "generator": torch.Generator().manual_seed(0),
               "problem": problem.name} | options  # fmt: skip
    return t1.compare_estimators(problem.f, problem.make, problem.params, **options)


def test_quadratic_agrees_with_its_closed_form() -> None:
    problem = known.quadratic(2)
    found = compare(problem, reference=problem.gradient)
    assert found.passed
    assert found.reference == pytest.approx(problem.truth.tolist())
    assert found.reference_kind == "exact"
    assert found.coordinates == ("loc[0]", "loc[1]", "scale[0]", "scale[1]")
    pathwise, loo = found.row("Pathwise"), found.row("LeaveOneOut")
    # per sample Var 2x_j = 4 for each µ_j and Var 2x_jε_j = 4(µ² + 2) = 9 for each σ_j: 26 over 64
    assert pathwise.variance == pytest.approx(26 / 64, abs=4.5 * pathwise.variance_stderr)
    assert pathwise.variance < loo.variance
    assert (pathwise.evaluations, loo.evaluations) == (64, 64)
    assert found.recommendation == "DeltaMethod"  # a quadratic is its own expansion
    assert math.isinf(found.row("DeltaMethod").efficiency)


def test_a_jump_is_flagged() -> None:
    found = compare(known.jump(), reference_samples=200_000)
    assert found.reference_kind.startswith("LeaveOneOut")
    assert found.row("Pathwise").verdict == "biased"
    assert abs(found.row("Pathwise").bias_z) > 50
    assert not found.passed
    assert any("f jumps" in flag for flag in found.flags)
    assert found.recommendation not in ("", "Pathwise")
    assert found.row("LeaveOneOut").verdict == "agrees"


def test_straight_through_family_is_flagged_and_never_recommended() -> None:
    problem = known.tucker(1.0, t=0.2)
    found = compare(
        problem, estimators=[StraightThrough(), GumbelSoftmax(), DisARM()], repeats=20_000
    )
    assert found.reference_kind == "enumeration"
    assert found.row("StraightThrough").verdict == "biased as declared"
    assert found.row("GumbelSoftmax(τ=1)").verdict == "biased as declared"
    assert found.recommendation == "DisARM"
    assert found.passed  # they never claimed to be unbiased
    assert sum("biased" in flag for flag in found.flags) == 2


def test_moving_support_is_flagged() -> None:
    found = t1.compare_estimators(
        torch.square, lambda high: D.Uniform(0.0, high), torch.tensor(1.5), repeats=100,
        reference_samples=10_000, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert any("support moves" in flag for flag in found.flags)
    assert "moves with a parameter" in dict(found.skipped)["LeaveOneOut"]
    assert found.recommendation == "Pathwise"


def test_a_jump_under_a_moving_support_is_seen() -> None:
    found = t1.compare_estimators(  # E = 1 − 0.5/high: the gradient is 0.125, its path's is 0
        lambda x: (x > 0.5) + 0.0 * x, lambda high: D.Uniform(0.0, high), torch.tensor(2.0),
        repeats=50, estimators=[Pathwise()], reference_samples=100_000,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert found.recommendation == ""
    assert found.rows[0].verdict == "biased"
    assert any("f jumps along the paths" in flag for flag in found.flags)


def test_a_wrong_reference_is_noticed() -> None:
    problem = known.quadratic_location(2)
    found = compare(problem, reference={"loc": torch.tensor([1.1, 1.1])}, repeats=5000)
    assert found.row("Pathwise").verdict == "biased"


def test_noise_is_not_taken_for_agreement() -> None:
    found = compare(known.tucker(0.0), estimators=[ScoreFunction()], repeats=50)
    assert found.row("ScoreFunction").verdict == "too noisy to tell"


def test_record_survives_json_and_prints() -> None:
    found = compare(known.tucker(0.5, t=0.2), repeats=50)
    again = EstimatorComparison.from_json(found.to_json())
    assert again == found
    text = str(found)
    assert "take " in text
    assert "does not apply: Pathwise" in text
    assert "bias z" in text
    with pytest.raises(KeyError, match="no row 'nothing'; rows: ScoreFunction"):
        found.row("nothing")


def test_black_box_one_sample_at_a_time() -> None:
    def f(x: Tensor) -> float:
        return float(x.numpy() ** 2) if not x.requires_grad else float("nan")

    found = t1.compare_estimators(
        f, lambda mu: D.Normal(mu, 1.0), torch.tensor(0.5, dtype=torch.float64),
        estimators=[LeaveOneOut(), ScoreFunction()], n_samples=4, repeats=50,
        reference=torch.tensor(1.0), vectorized=False, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert len(found.rows) == 2


def test_bad_input() -> None:
    problem = known.quadratic_location(2)
    with pytest.raises(InputError, match="need at least 2"):
        compare(problem, repeats=1)
    with pytest.raises(InputError, match="reference has 3 entries; the parameters have 2"):
        compare(problem, reference=torch.zeros(3))
    with pytest.raises(EstimatorError, match=r"no estimator applies: .*not Bernoulli"):
        compare(problem, estimators=[DisARM()], reference=problem.gradient)
    with pytest.raises(EstimatorError, match=r"no estimator applies: .*discrete"):
        compare(known.tucker(0.1), estimators=[Pathwise()])


@pytest.mark.parametrize("repeats", [3, 10, 200])
def test_an_outcome_that_no_estimate_shows_is_no_bias(repeats: int) -> None:
    comparison = t1.compare_estimators(
        lambda b: (100 * b).sum(-1), lambda p: D.Independent(D.Bernoulli(p), 1),
        torch.full((3,), 0.005, dtype=torch.float64), estimators=[LeaveOneOut()], n_samples=4,
        repeats=repeats, reference=torch.full((3,), 100.0),
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    assert comparison.rows[0].verdict == "too noisy to tell"


def test_equal_estimates_are_a_bias_once_there_are_enough() -> None:
    def verdict(repeats: int) -> str:
        comparison = t1.compare_estimators(
            lambda x: (x > 0) + 0.0 * x, lambda mu: D.Normal(mu, 1.0), torch.tensor(0.3),
            estimators=[Pathwise()], repeats=repeats, reference=torch.tensor(0.381388),
        )  # fmt: skip
        return comparison.rows[0].verdict

    assert [verdict(repeats) for repeats in (20, 200)] == ["too noisy to tell", "biased"]


def test_a_probability_on_its_edge_is_seen_under_any_name() -> None:
    comparison = t1.compare_estimators(
        lambda b: b, lambda p: D.Bernoulli(probs=p), torch.tensor(0.0), repeats=5,
        estimators=[LeaveOneOut()],
    )  # fmt: skip
    assert comparison.rows[0].verdict == "score not centred"
