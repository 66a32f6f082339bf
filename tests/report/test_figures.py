"""Figure data: the numbers that every renderer draws."""

import math
from collections.abc import Callable

import pytest

from thetaone.records import (
    Cost,
    LawResult,
    Region,
    Schedule,
    TargetMemory,
    Timeline,
    TransferResult,
)
from thetaone.report import schedule_figure
from thetaone.report.drawing import Figure, Series
from thetaone.report.figures import (
    account_figure,
    drift_figure,
    exponent_figure,
    frontier_figure,
    laws_figure,
    learning_rate_figure,
    timeline_figure,
    training_figure,
    update_figure,
)
from thetaone.report.figures._timeline import operation_kinds
from thetaone.report.figures._training import moving_mean

MIB = 2**20

FIGURES: dict[str, Callable[[TransferResult], Figure]] = {
    "learning rate": lambda r: learning_rate_figure([r.sp, r.mup]),
    "drift": lambda r: drift_figure([r.mup, r.sp]),
    "updates": lambda r: update_figure([r.check_sp, r.check_mup]),
    "exponents": lambda r: exponent_figure([r.check_sp, r.check_mup]),
    "frontier": lambda r: frontier_figure(plan(r).frontier, budget_bytes=31 * MIB),
    "timeline": lambda r: timeline_figure(cost(r).timeline, budget_bytes=31 * MIB),
    "training": lambda r: training_figure(r.target),
    "account": lambda r: account_figure(plan(r).account),
    "laws": lambda r: laws_figure(r.laws),
    "schedule": lambda r: schedule_figure(schedule(r)),
}


def plan(result: TransferResult) -> TargetMemory:
    assert result.memory is not None
    return result.memory


def schedule(result: TransferResult) -> Schedule:
    chosen = plan(result).schedule
    assert chosen is not None
    return chosen


def cost(result: TransferResult) -> Cost:
    replayed = plan(result).cost
    assert replayed is not None
    return replayed


def named(figure: Figure, panel: int, name: str) -> list[Series]:
    return [series for series in figure.panels[panel].series if series.name == name]


@pytest.mark.parametrize("name", FIGURES)
def test_every_value_drawn_is_on_its_axes(name: str, result: TransferResult) -> None:
    figure = FIGURES[name](result)
    assert figure.alt
    for panel in figure.panels:
        for axis in (panel.x, panel.y):
            low, high = axis.range
            assert low < high
            assert all(low <= value <= high for value, _ in axis.ticks)
        for series in panel.series:
            assert series.x, series.name
            for x, y in zip(series.x, series.y, strict=True):
                assert panel.x.range[0] <= x <= panel.x.range[1]
                if panel.y.label != "training loss":  # that axis ends at the untrained loss
                    assert panel.y.range[0] <= y <= panel.y.range[1]


def test_learning_rate_shows_seed_means_with_their_standard_error(result: TransferResult) -> None:
    figure = learning_rate_figure([result.sp, result.mup])
    (curve,) = named(figure, 1, "width 64")
    lr, values = next(iter(result.mup.final_losses(64).items()))
    assert curve.x[0] == lr
    assert curve.y[0] == pytest.approx(sum(values) / 2)
    assert curve.high[0] - curve.y[0] == pytest.approx(abs(values[0] - values[1]) / 2)


def test_learning_rate_panels_share_one_loss_axis(result: TransferResult) -> None:
    sp, mup = learning_rate_figure([result.sp, result.mup]).panels
    assert sp.y == mup.y
    assert "SP" in sp.title
    assert "µP" in mup.title


def test_divergence_is_a_cross_at_the_upper_edge_and_not_in_the_curve(
    result: TransferResult,
) -> None:
    figure = learning_rate_figure([result.sp])
    diverged = [t for t in result.sp.trials if t.status == "diverged" and t.width == 128]
    crosses = named(figure, 0, "diverged")
    assert set(crosses[-1].x) == {trial.lr for trial in diverged}
    top = figure.panels[0].y.range[1]
    assert all(0.9 * top < y <= top for series in crosses for y in series.y)
    (curve,) = named(figure, 0, "width 128")
    assert not set(curve.x) & set(crosses[-1].x)
    assert all(map(math.isfinite, curve.y))


def test_stars_stand_at_the_fitted_vertices(result: TransferResult) -> None:
    stars = named(learning_rate_figure([result.mup]), 0, "best rate (fitted)")
    assert [star.x[0] for star in stars] == [2.0**o.log2_lr for o in result.mup.optima.values()]
    assert all(star.low[0] < star.x[0] < star.high[0] for star in stars)


def test_drift_draws_the_optimum_of_each_width_and_half_an_octave(result: TransferResult) -> None:
    panel = drift_figure([result.mup, result.sp]).panels[0]
    sp = panel.series[1]
    assert [math.log2(y) for y in sp.y] == pytest.approx([-6.40, -7.53, -8.91])
    (strip,) = panel.references
    assert strip.upper is not None
    assert math.log2(strip.upper / strip.value) == pytest.approx(1.0)


def test_drift_survives_a_sweep_in_which_nothing_trained(result: TransferResult) -> None:
    empty = result.sp.model_copy(update={"optima": {}, "drift": None})
    figure = drift_figure([result.mup, empty])
    assert figure.panels[0].series[1].x == ()
    assert "fewer than two sizes have a best rate" in figure.alt


def test_coordinate_check_marks_failing_layers_by_name_and_shape(result: TransferResult) -> None:
    sp, mup = update_figure([result.check_sp, result.check_mup]).panels
    failing = [series for series in sp.series if series.name == "fails"]
    assert len(result.check_sp.failed_layers) == 9
    assert len(failing) == 5  # blocks 0 and 1 share a line
    assert all(series.symbol == "cross" and series.dash == "dash" for series in failing)
    assert failing[0].notes[0].startswith("blocks.1.attention.query, the furthest of 2 alike")
    assert {series.name for series in mup.series} == {"passes"}


def test_coordinate_check_without_a_law_has_no_exponent_but_keeps_its_row(
    result: TransferResult,
) -> None:
    broken = result.check_sp.rows[0].model_copy(update={"law": None, "passed": False})
    check = result.check_sp.model_copy(update={"rows": (broken, *result.check_sp.rows[1:])})
    figure = exponent_figure([check])
    assert broken.layer in [name for _, name in figure.panels[0].y.ticks]
    assert len(figure.panels[0].series[0].x) == 6


def test_exponents_are_those_of_the_fits(result: TransferResult) -> None:
    sp, mup = exponent_figure([result.check_sp, result.check_mup]).panels[0].series
    assert sp.x[1] == 0.93  # of blocks.0 (0.92) and blocks.1, the one further from zero
    assert mup.x[1] == -0.02
    assert (mup.low[1], mup.high[1]) == pytest.approx((-0.07, 0.03))


def test_layers_alike_that_disagree_share_a_row_with_a_mark_each(result: TransferResult) -> None:
    """Named one by one they would stand beside the other check's row of all, with no band."""
    rows = tuple(
        row.model_copy(update={"answer": "holds"}) if row.layer == "blocks.0.mlp.up" else row
        for row in result.check_sp.rows
    )
    check = result.check_sp.model_copy(update={"rows": rows})
    (panel,) = exponent_figure([check, result.check_mup]).panels
    (place,) = [place for place, name in panel.y.ticks if name == "blocks.*.mlp.up"]
    sp, mup = ([n for y, n in zip(s.y, s.notes, strict=True) if abs(y - place) < 0.5]
               for s in panel.series)  # fmt: skip
    assert [note.split(":")[0] for note in sp] == ["blocks.0.mlp.up", "blocks.1.mlp.up"]
    assert len(mup) == 1
    assert place in panel.bars[0].y


def test_a_long_training_is_drawn_with_few_points_and_keeps_its_peak(
    result: TransferResult,
) -> None:
    losses = [2.0 + 0.1 * (step % 7) for step in range(100_000)]
    losses[54_321] = 99.0
    target = result.target.model_copy(update={"losses": tuple(losses)})
    raw, mean = training_figure(target).panels[0].series
    assert len(raw.x) <= 1000
    assert len(mean.x) <= 1000
    assert (54_322.0, 99.0) in zip(raw.x, raw.y, strict=True)


def test_frontier_is_relative_to_store_all_and_marks_plan_and_budget(
    result: TransferResult,
) -> None:
    panel = FIGURES["frontier"](result).panels[0]
    optimal = panel.series[0]
    assert optimal.y[-1] == 1.0
    assert list(optimal.x) == sorted(optimal.x)
    (chosen,) = [series for series in panel.series if series.name == "chosen plan"]
    assert chosen.x == (schedule(result).peak_bytes,)
    lines = {reference.label: reference.value for reference in panel.references}
    assert lines == {"floor": 7 * MIB, "budget": 31 * MIB}


def test_timeline_tells_first_forwards_from_recomputed_ones(result: TransferResult) -> None:
    timeline = cost(result).timeline
    kinds = operation_kinds(timeline)
    assert (kinds.count("first"), kinds.count("again"), kinds.count("backward")) == (6, 3, 6)
    what, memory = FIGURES["timeline"](result).panels
    recomputed = next(bars for bars in what.bars if bars.name == "recomputed forward")
    assert recomputed.y == (5.0, 4.0, 3.0)  # blocks 0, 1, 2: the first row is on top
    assert recomputed.pattern
    assert max(memory.series[0].y) == schedule(result).peak_bytes


def test_an_operation_that_takes_no_time_makes_no_spike() -> None:
    timeline = Timeline(
        operations=("tape", "load", "backward"), stages=(0, 0, 0), starts=(0.0, 1.0, 1.0),
        seconds=(1.0, 0.0, 2.0), live_bytes=(5, 1, 6),
    )  # fmt: skip
    memory = timeline_figure(timeline).panels[1].series[0]
    assert (memory.x, memory.y) == ((0.0, 1.0, 3.0), (5.0, 6.0, 6.0))


def test_account_stacks_to_the_predicted_peak(result: TransferResult) -> None:
    account = plan(result).account
    panel = account_figure(account).panels[0]
    stacked = sorted(bars.right[0] for bars in panel.bars if bars.y == (1.0,))
    assert stacked[-1] == account.predicted_peak_bytes
    assert panel.references[0].value == account.budget_bytes


def test_laws_draw_z_scores_and_leave_exact_ones_to_the_table(result: TransferResult) -> None:
    panel = laws_figure(result.laws).panels[0]
    assert len(panel.series[0].x) == 5
    assert panel.series[0].x[0] == pytest.approx((64.21 - 64.0) / 0.31)


def test_a_law_that_fails_is_a_cross_and_is_named(result: TransferResult) -> None:
    wrong = LawResult(name="wrong", title="", quantity="q", predicted=1.0, measured=2.0,
                      stderr=0.1, passed=False)  # fmt: skip
    figure = laws_figure((*result.laws, wrong))
    (cross,) = named(figure, 0, "fails")
    assert (cross.x, cross.symbol) == ((10.0,), "cross")
    assert "wrong" in figure.alt


def test_schedule_draws_nested_regions_by_depth() -> None:
    schedule = Schedule(
        length=6, regions=(Region(start=0, stop=5), Region(start=1, stop=3, tier="disk")),
        total_seconds=1.0, peak_bytes=1, forwards=13, loads=2, policy="nested",
    )  # fmt: skip
    regions, executions = schedule_figure(schedule).panels
    ram, disk = regions.bars
    assert (ram.left, ram.right, ram.y) == ((-0.5,), (4.5,), (1.0,))
    assert (disk.left, disk.right, disk.y) == ((0.5,), (2.5,), (0.0,))
    assert executions.series[0].y == (2.0, 3.0, 3.0, 2.0, 2.0, 1.0)


def test_moving_mean_skips_what_is_not_finite() -> None:
    assert moving_mean([1.0, math.nan, 3.0], 3) == (1.0, 2.0, 3.0)


def test_a_series_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"series 'a': 1 values for 2 x"):
        Series(name="a", x=(1.0, 2.0), y=(1.0,))
