import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import Batch, Toy

import thetaone as t1
from thetaone.records import Trial, TrialSpec
from thetaone.sweeps import (
    find_drift,
    find_optima,
    loss_curves,
    nearest_optimum,
    transfer_penalties,
)
from thetaone.sweeps._optima import loss_at

GRID = np.arange(-10.0, -2.0)


def bowl(
    width: int, vertex: float, *, seeds: int = 3, noise: float = 0.0, diverged_from: float = 99
) -> list[Trial]:
    """Trials of one step on ``2 + 0.1 (log2 lr − vertex)²``; the vertex differs by seed."""
    trials: list[Trial] = []
    for seed in range(seeds):
        shift = noise * (seed - (seeds - 1) / 2)
        for x in GRID:
            diverged = x >= diverged_from
            loss = math.inf if diverged else 2 + 0.1 * (x - vertex - shift) ** 2
            trials.append(
                Trial(
                    spec=TrialSpec(rule="sp", width=width, lr=2.0**x, seed=seed, n_steps=1),
                    losses=(loss,),
                    status="diverged" if diverged else "finished",
                )
            )
    return trials


def test_vertices_of_exact_bowls_and_their_drift() -> None:
    curves = loss_curves([*bowl(32, -5.3), *bowl(64, -6.1), *bowl(128, -7.45)])
    optima = find_optima(curves)
    assert [round(optima[w].log2_lr, 6) for w in (32, 64, 128)] == [-5.3, -6.1, -7.45]
    drift = find_drift(curves, optima)
    assert drift is not None
    assert drift.octaves == pytest.approx(-2.15)
    assert (drift.from_width, drift.to_width) == (32, 128)
    assert drift.stderr == pytest.approx(0, abs=1e-6)


def test_scatter_of_two_seeds_is_pooled_over_the_widths() -> None:
    quiet = [*bowl(32, -5.3, seeds=2), *bowl(128, -6.3, seeds=2)]
    curves = loss_curves([*quiet, *bowl(64, -5.8, seeds=2, noise=0.3)])
    drift = find_drift(curves, find_optima(curves))
    assert drift is not None
    assert drift.octaves == pytest.approx(-1.0)
    # vertices ±0.15 at one of three widths: variance of its mean 0.3² / 4, a third of it pooled
    assert drift.stderr == pytest.approx(math.sqrt(2 * (0.3**2 / 4) / 3), rel=0.05)
    # Student-t with 3 degrees of freedom
    assert drift.interval[1] - drift.octaves == pytest.approx(3.182 * drift.stderr, rel=1e-3)


def test_the_interval_of_the_drift_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    widths, repeats = (32, 64, 128), 400
    hits, halves = 0, []
    for _ in range(repeats):
        curves = {
            width: (GRID, 2 + 0.1 * (GRID + 6 - rng.normal(0, 0.1, size=(2, 1))) ** 2)
            for width in widths
        }
        drift = find_drift(curves, find_optima(curves))
        assert drift is not None
        hits += drift.interval[0] <= 0 <= drift.interval[1]
        halves.append(drift.interval[1] - drift.octaves)
    assert np.median(halves) < 0.5  # power: the interval is short enough to be of use
    # 95 % of 400, within 4.5 standard errors of a binomial
    assert abs(hits / repeats - 0.95) <= 4.5 * math.sqrt(0.95 * 0.05 / repeats)


def test_an_optimum_on_the_edge_only_bounds_the_drift() -> None:
    curves = loss_curves([*bowl(32, -5.3), *bowl(128, -12.0)])
    drift = find_drift(curves, find_optima(curves))
    assert drift is not None
    assert drift.bounded_only
    assert drift.interval[0] == -math.inf
    assert "edge of the grid" in str(drift)


def test_one_seed_gives_a_bracket_and_no_standard_error() -> None:
    curves = loss_curves([*bowl(32, -5.3, seeds=1), *bowl(128, -6.3, seeds=1)])
    drift = find_drift(curves, find_optima(curves))
    assert drift is not None
    assert math.isnan(drift.stderr)
    assert drift.interval == pytest.approx((-3.0, 1.0))  # brackets (−7, −5) and (−6, −4)


def test_penalty_is_the_excess_loss_of_the_transferred_rate() -> None:
    curves = loss_curves([*bowl(32, -5.3), *bowl(128, -6.3)])
    penalties = transfer_penalties(curves, find_optima(curves), -5.3)
    assert penalties[32] == pytest.approx(0, abs=1e-9)
    assert penalties[128] == pytest.approx(0.1 * 1.0**2 / 2, rel=1e-6)


def test_penalty_is_infinite_where_the_rate_diverges() -> None:
    curves = loss_curves([*bowl(32, -5.3), *bowl(128, -8.3, diverged_from=-5)])
    assert transfer_penalties(curves, find_optima(curves), -5.3)[128] == math.inf
    assert transfer_penalties(curves, find_optima(curves), -6.0)[128] < 1


def test_no_optimum_where_everything_diverged_or_the_grid_is_too_short() -> None:
    curves = loss_curves([*bowl(32, -5.3, diverged_from=-99), *bowl(64, -6)])
    assert list(find_optima(curves)) == [64]
    assert find_drift(curves, find_optima(curves)) is None
    assert find_optima(loss_curves(bowl(32, -5)[:2])) == {}


def test_a_failed_trial_removes_its_rate() -> None:
    trials = bowl(32, -5.3)
    trials[3] = trials[3].model_copy(update={"status": "failed", "losses": ()})
    log2_lrs, losses = loss_curves(trials)[32]
    assert list(log2_lrs) == [x for x in GRID if x != GRID[3]]
    assert losses.shape == (3, len(GRID) - 1)


def test_curve_between_grid_points_is_the_data_at_them() -> None:
    curve = loss_curves(bowl(32, -5.3, diverged_from=-3))[32]
    for index, x in enumerate(GRID):
        assert loss_at(curve, float(x)) == pytest.approx(float(curve[1].mean(axis=0)[index]))
    assert loss_at(curve, -3.5) == math.inf
    assert math.isnan(loss_at(curve, -20))


def test_one_failing_seed_leaves_the_others_answer_alone() -> None:
    trials = [
        trial.model_copy(update={"status": "failed", "losses": ()})
        if trial.spec.seed == 2
        else trial
        for trial in bowl(32, -5.3)
    ]
    log2_lrs, losses = loss_curves(trials)[32]
    assert (len(log2_lrs), losses.shape) == (len(GRID), (2, len(GRID)))
    assert find_optima(loss_curves(trials))[32].log2_lr == pytest.approx(-5.3)


class LosingAShard(Toy):
    """Seed 2 has no first batch, seed 3 is NaN from its fourth on."""

    def batches(self, seed: int) -> Iterator[Batch]:
        if seed == 2:
            raise OSError("shard 2 is missing")
        for step, (x, y) in enumerate(super().batches(seed)):
            yield (x * math.nan if seed == 3 and step > 2 else x), y


@pytest.mark.parametrize("search", ["grid", "auto"])
@pytest.mark.parametrize("stored", [False, True])
def test_seeds_whose_data_fail_leave_the_others_answer_alone(
    search: str, stored: bool, tmp_path: Path
) -> None:
    call: dict[str, Any] = {
        "widths": [4], "lrs": [2.0**p for p in range(-9, -3)], "steps": 6, "engine": "serial",
        "search": search,
    }  # fmt: skip
    good = t1.sweep(LosingAShard(), **call, seeds=[0, 1])
    all_four = t1.sweep(
        LosingAShard(), **call, seeds=[0, 1, 2, 3], storage=tmp_path / "j" if stored else None
    )
    assert {t.status for t in all_four.trials if t.seed == 2} <= {"failed"}
    assert all_four.optima[4].log2_lr == pytest.approx(good.optima[4].log2_lr, abs=0.5)
    if search == "grid":
        assert all_four.optima == good.optima


def test_the_best_rate_of_a_base_outside_the_widths_is_the_nearest_widths() -> None:
    optima = find_optima(loss_curves([*bowl(16, -5.3), *bowl(32, -6.1)]))
    assert nearest_optimum(optima, 8) == optima[16]
    assert nearest_optimum(optima, 1024) == optima[32]
    assert nearest_optimum({}, 8) is None
