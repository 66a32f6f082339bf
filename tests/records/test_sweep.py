import json
import math

import pytest

from thetaone.errors import RecordError
from thetaone.records import Drift, EngineDecision, Optimum, SweepResult, Trial, TrialSpec
from thetaone.records.sweeps._trial import final_loss


def make_trial(
    width: int, lr: float, loss: float, *, seed: int = 0, status: str = "finished"
) -> Trial:
    return Trial.model_validate(
        {
            "parametrization": "mup", "width": width, "lr": lr, "seed": seed,
            "losses": (loss + 1, loss), "status": status, "n_steps": 2, "n_parameters": 1000,
        }
    )  # fmt: skip


def make_result() -> SweepResult:
    optimum = Optimum(log2_lr=-6.4, stderr=0.1, interval=(-6.6, -6.2), loss=2.0)
    return SweepResult(
        task="lm", parametrization="mup", optimizer="Adam", base_width=32,
        trials=(
            make_trial(32, 0.5, 3.0, status="diverged"),
            make_trial(32, 0.25, 2.0),
            make_trial(64, 0.25, 1.5, seed=1),
            make_trial(64, 0.25, 1.75, seed=0),
            make_trial(64, 0.25, 1.75, seed=2, status="failed"),
        ),
        engine=EngineDecision(engine="serial", reason="one trial"),
        optima={32: optimum}, penalties={32: 0.0},
        drift=Drift(octaves=-0.25, stderr=0.1, interval=(-0.45, -0.05), from_width=32, to_width=64),
        n_trained=5, n_reused=0, wall_seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([5.0], 5.0), ([5.0, 1.0], 1.0), ([0.0] * 80 + [1.0] * 10 + [3.0] * 10, 2.0)],
)
def test_final_loss_is_the_mean_of_the_last_fifth(losses: list[float], expected: float) -> None:
    assert final_loss(losses) == expected


def test_final_loss_of_each_ending() -> None:
    assert make_trial(32, 0.5, 3.0).final_loss == 3.0
    assert make_trial(32, 0.5, 3.0, status="diverged").final_loss == math.inf
    assert math.isnan(make_trial(32, 0.5, 3.0, status="failed").final_loss)
    assert math.isnan(final_loss([]))


def test_losses_are_grouped_by_rate_in_seed_order_without_failures() -> None:
    result = make_result()
    assert result.final_losses(64) == {0.25: (1.75, 1.5)}
    assert result.final_losses(32) == {0.25: (2.0,), 0.5: (math.inf,)}


def test_best_lr_is_the_base_optimum() -> None:
    assert make_result().best_lr == pytest.approx(2**-6.4)
    # without optima: the lowest mean among what was trained at the base; NaN when nothing was
    assert make_result().model_copy(update={"optima": {}}).best_lr == 0.25
    diverged = (make_trial(32, 0.5, 3.0, status="diverged"),)
    assert math.isnan(make_result().model_copy(update={"optima": {}, "trials": diverged}).best_lr)


def test_survives_json() -> None:
    result = make_result()
    assert SweepResult.from_json(result.to_json()) == result


def test_prints_optimum_drift_and_what_failed() -> None:
    text = str(make_result())
    assert "-6.40" in text
    assert "drift -0.25 octaves [-0.45, -0.05] over width 32 → 64" in text
    assert "1/2" in text  # diverged trials of width 32
    assert "1 trials failed" in text


def test_a_trial_is_flat_in_json_and_a_later_version_is_refused_by_name() -> None:
    flat = {
        "record": "Trial", "version": 1, "parametrization": "mup", "width": 32, "lr": 0.25,
        "seed": 3, "n_steps": 2, "losses": [2.0, "NaN"], "status": "diverged",
    }  # fmt: skip
    trial = Trial.from_json(json.dumps(flat))
    assert trial.spec == TrialSpec(width=32, lr=0.25, seed=3, n_steps=2, rule="mup")
    assert Trial.from_json(trial.to_json()).to_json() == trial.to_json()
    written = json.loads(trial.to_json())
    assert (written["lr"], written["width"], written["losses"][0]) == (0.25, 32, 2.0)
    with pytest.raises(RecordError, match="Trial record of version 3; this thetaone reads"):
        Trial.from_json(trial.to_json().replace('"version": 1', '"version": 3'))


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((-math.inf, math.inf), "not bracketed"),
        ((-math.inf, -6.0), "at most -6.00"),
        ((-7.0, math.inf), "at least -7.00"),
        ((-7.0, -6.0), "[-7.00, -6.00]"),
    ],
)
def test_an_open_interval_is_said_in_words(interval: tuple[float, float], words: str) -> None:
    optimum = Optimum(log2_lr=-6.4, stderr=math.inf, interval=interval, loss=2.0)
    open_drift = Drift(
        octaves=0.5, stderr=math.inf, interval=(-math.inf, math.inf), from_width=4, to_width=8
    )
    text = str(make_result().model_copy(update={"optima": {32: optimum}, "drift": open_drift}))
    assert words in text
    assert "drift +0.50 octaves not bracketed over" in text
    assert "inf" not in text
