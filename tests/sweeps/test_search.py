import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import nn
from toy import Toy, adam

import thetaone as t1
from thetaone.cli.main import main
from thetaone.errors import InputError
from thetaone.laws import fit_vertex
from thetaone.records import ProgressEvent, SweepResult, TrainingLoop, TransferResult, Trial
from thetaone.sweeps.search._drive import stop_of
from thetaone.sweeps.search._plan import BEYOND, LIMIT, Ask, plan_search

Loss = Callable[[float, int], float]  # of log2 rate and seed


def played(
    loss: Loss, grid: Sequence[float], seeds: Sequence[int] = (0, 1, 2), early: Loss | None = None,
    start: float | None = None,
) -> tuple[list[Ask], dict[tuple[float, int], float]]:  # fmt: skip
    """Every ask of a search on a known function, and the losses of whole trainings."""
    plan = plan_search(grid, seeds, n_steps=96, stop=6, start=start)
    asks: list[Ask] = []
    whole: dict[tuple[float, int], float] = {}
    try:
        ask = next(plan)
        while True:
            asks.append(ask)
            function = (early or loss) if ask.stop else loss
            answers = {(x, s): function(x, s) for x in ask.log2_lrs for s in ask.seeds}
            if not ask.stop:
                assert not answers.keys() & whole.keys()  # nothing is trained twice
                whole |= answers
            ask = plan.send(answers)
    except StopIteration:
        return asks, whole


def best_of(whole: dict[tuple[float, int], float], seeds: Sequence[int] = (0, 1, 2)) -> float:
    rates = sorted({x for x, _ in whole if all((x, s) in whole for s in seeds)})
    return fit_vertex(rates, [[whole[x, s] for x in rates] for s in seeds]).log2_lr


def bowl(vertex: float) -> Loss:
    return lambda x, seed: (x - vertex) ** 2 + 0.1 * seed


@given(st.floats(-16.0, 2.0), st.sampled_from([1.0, 0.5]))
@settings(deadline=None)
def test_the_vertex_of_a_bowl_is_reached_from_any_grid(vertex: float, step: float) -> None:
    grid = [-10 + step * index for index in range(round(8 / step) + 1)]  # −10 … −2
    asks, whole = played(bowl(vertex), grid)
    assert best_of(whole) == pytest.approx(vertex, abs=1e-6)
    inside = -10 <= vertex <= -2
    spent = sum(len(a.log2_lrs) * len(a.seeds) * (a.stop or 96) / 96 for a in asks)
    if inside:
        assert spent <= max(LIMIT * len(grid) * 3, 9 + 3 + 9 / 16)  # or what a bracket takes
    assert asks[0].stop == 6
    assert asks[0].seeds == (0,)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_skewed_bowl_is_known_to_a_quarter_octave(shift: float) -> None:
    def skewed(x: float, seed: int) -> float:
        return 2 ** (3 * (x + 5 - shift)) + 2 ** -(x + 5 - shift) + 0.001 * seed

    truth = -5 + shift - math.log2(3) / 4
    assert abs(best_of(played(skewed, range(-12, -1))[1]) - truth) <= 0.25


def test_half_octaves_are_added_while_seeds_disagree_and_the_limit_allows() -> None:
    def scattered(x: float, seed: int) -> float:
        return (x + 5.3 + 0.3 * (seed - 1)) ** 2

    few, many = ([-9 + step * i for i in range(round(7 / step) + 1)] for step in (1.0, 0.25))
    halves = [x for a in played(scattered, many)[0] if not a.stop for x in a.log2_lrs if x % 1]
    assert halves == [-5.5]  # the vertex's side; then the lowest has a neighbour on both
    assert not [x for a in played(scattered, few)[0] for x in a.log2_lrs if x % 1]


def test_a_search_that_begins_near_compares_no_octaves_first() -> None:
    asks, whole = played(bowl(-6.3), [-10.0, -9, -8, -7, -6, -5], start=-6.6)
    assert asks[0] == Ask(log2_lrs=(-8.0, -7.0, -6.0), seeds=(0,))
    assert best_of(whole) == pytest.approx(-6.3)


def test_a_misleading_beginning_costs_a_climb_and_not_the_answer() -> None:
    asks, whole = played(bowl(-7.2), [float(x) for x in range(-10, 0)], early=bowl(-2.0))
    assert best_of(whole) == pytest.approx(-7.2)
    assert {x for a in asks if not a.stop for x in a.log2_lrs} >= {-3.0, -4.0, -5.0, -6.0, -7.0}


def test_diverged_rates_are_climbed_away_from_and_a_hopeless_task_ends() -> None:
    def cliff(x: float, seed: int) -> float:
        return math.inf if x > -8.5 else bowl(-10.0)(x, seed)

    assert best_of(played(cliff, [-6.0, -5.0, -4.0, -3.0])[1]) == pytest.approx(-10.0)
    for never in (math.inf, math.nan):
        _, whole = played(lambda x, seed, never=never: never, [-6.0, -5.0])
        assert min(x for x, _ in whole) == -6 - BEYOND


@pytest.mark.parametrize("start", [None, -6.0])
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("how", [math.nan, math.inf])
def test_a_seed_that_fails_at_every_rate_is_left_out(
    how: float, seed: int, start: float | None
) -> None:
    def loss(x: float, one: int) -> float:
        return how if one == seed else bowl(-6.2)(x, one)

    asks, whole = played(loss, list(range(-10, -1)), early=bowl(-6.2), start=start)
    assert best_of(whole, [s for s in (0, 1, 2) if s != seed]) == pytest.approx(-6.2)
    assert len(whole) <= 12  # nothing is climbed after
    assert len(asks) <= 6


def test_a_warm_up_is_waited_for() -> None:
    assert stop_of(TrainingLoop(), 96) == 6
    warm = TrainingLoop(schedule="warmup-cosine:0.2")
    factors = [warm.factor(step, 96) for step in range(96)]
    stop = stop_of(warm, 96)
    assert sum(factors[: stop - 1]) < sum(factors) / 16 <= sum(factors[:stop])
    assert stop > 6
    assert stop_of(TrainingLoop(), 7) == 7  # too short to be worth it


SMALL: dict[str, Any] = {
    "widths": [4, 8], "lrs": [2.0**x for x in range(-9, 0)], "seeds": [0, 1], "steps": 32,
    "engine": "serial", "optimizer": "Adam", "search": "auto",
}  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResult, Path, list[Any]]:
    journal = tmp_path_factory.mktemp("search") / "sweep.journal"
    events: list[ProgressEvent] = []
    torch.set_num_threads(1)
    return t1.sweep(Toy(), **SMALL, storage=journal, progress=events.append), journal, events


def test_a_search_ends_near_the_grid_for_less(searched: tuple[SweepResult, Path, Any]) -> None:
    result, _, _ = searched
    grid = t1.sweep(Toy(), **{**SMALL, "search": "grid"})
    for width in (4, 8):
        assert abs(result.optima[width].log2_lr - grid.optima[width].log2_lr) < 0.5
    assert result.search is not None
    assert result.search.n_grid == len(grid.trials)
    assert result.search.grid_flops == sum(trial.cost_flops for trial in grid.trials)
    assert result.search.flops == sum(trial.cost_flops for trial in result.trials)
    assert result.search.share < 0.7
    assert f"search: {100 * result.search.share:.0f} % of the grid's compute" in str(result)
    whole = {(t.width, t.lr, t.seed): t.losses for t in grid.trials}
    shared = [t for t in result.trials if (t.width, t.lr, t.seed) in whole]
    assert {t.status for t in shared} == {"finished", "stopped"}
    for trial in shared:  # a stopped training is the beginning of the whole one, to the bit
        assert trial.losses == whole[trial.width, trial.lr, trial.seed][: len(trial.losses)]
    stopped = [t for t in result.trials if t.status == "stopped"]
    assert {(t.width, t.seed, len(t.losses)) for t in stopped} == {(4, 0, 4)}
    assert len(stopped) == 9
    assert not any(t.status == "stopped" for t in result.judged)


def test_the_same_search_asked_twice_trains_nothing(
    searched: tuple[SweepResult, Path, Any],
) -> None:
    result, journal, _ = searched
    again = t1.sweep(Toy(), **SMALL, storage=journal)
    assert (again.n_trained, again.n_reused) == (0, len(result.trials))
    assert (again.trials, again.optima, again.search) == (
        result.trials, result.optima, result.search,
    )  # fmt: skip
    assert SweepResult.from_json(again.to_json()).to_json() == again.to_json()
    grid = t1.sweep(Toy(), **{**SMALL, "search": "grid"}, storage=journal)
    whole = [t for t in result.trials if t.status == "finished" and t.lr in SMALL["lrs"]]
    assert grid.n_reused == len(whole)  # a stopped trial is never served for a whole one
    storage = JournalStorage(JournalFileBackend(str(journal)))
    states = [
        (trial.state.name, len(trial.intermediate_values))
        for study in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=study, storage=storage).trials
    ]
    assert states.count(("PRUNED", 4)) == 9  # all of its losses, as the dashboard draws them


def test_what_is_told_of_a_search(searched: tuple[SweepResult, Path, list[Any]]) -> None:
    result, _, events = searched
    assert [event.kind for event in events].count("planned") == 1
    done = [event.n_done for event in events if event.kind == "trial"]
    assert done == list(range(1, len(result.trials) + 1))
    assert all(event.n_done <= event.n_total for event in events)


class Judged(Toy):
    def evaluate(self, model: nn.Module) -> float:
        """Falls with the weights' size: the smallest rate is the best."""
        return float(sum(p.detach().square().sum() for p in model.parameters()))


@pytest.mark.parametrize("engine", ["serial", "stacked"])
def test_the_choice_is_by_evaluate_where_that_is_asked_for(engine: str) -> None:
    asked: dict[str, Any] = {**SMALL, "widths": [4], "engine": engine, "search": "grid"}
    result = t1.sweep(Judged(), **asked, choose="evaluate")
    for trial in result.trials:
        torch.manual_seed(trial.seed)
        model = Toy().model(4)
        optimizer = adam(model, 4, trial.lr)
        for batch, _ in zip(Toy().batches(trial.seed), trial.losses, strict=False):
            optimizer.zero_grad()
            Toy().loss(model, batch).backward()
            optimizer.step()
        assert trial.evaluation == pytest.approx(Judged().evaluate(model), rel=1e-3)
    means = {lr: sum(values) / 2 for lr, values in result.final_losses(4).items()}
    best = min(means, key=means.__getitem__)
    assert abs(result.optima[4].log2_lr - math.log2(best)) <= 1
    assert "evaluation" in str(result)
    by_loss = t1.sweep(Judged(), **asked)
    assert all(trial.evaluation is None for trial in by_loss.trials)
    assert by_loss.optima[4].log2_lr != result.optima[4].log2_lr


def test_trials_without_evaluation_are_not_served_where_it_is_asked_for(tmp_path: Path) -> None:
    asked: dict[str, Any] = {**SMALL, "widths": [4], "storage": tmp_path / "j", "search": "grid"}
    t1.sweep(Judged(), **asked)
    result = t1.sweep(Judged(), **asked, choose="evaluate")
    assert result.n_reused == 0
    assert all(trial.evaluation is not None for trial in result.trials)


@pytest.mark.slow
def test_a_transfer_searches_end_to_end_from_the_command_line(tmp_path: Path) -> None:
    sizes = ["--widths", "16,32", "--target", "64", "--lrs", "2^-8:2^-4", "--seeds", "0,1"]
    call = ["transfer", "digits", *sizes, "--steps", "40", "--engine", "serial"]
    rates: dict[str, float] = {}
    for search in ("grid", "auto"):
        folder = tmp_path / search
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*call, "--search", search, "--report", str(folder)])
        result = TransferResult.from_json(folder / "result.json")
        rates[search] = math.log2(result.chosen_lr)
        assert (result.mup.search is None) == (search == "grid")
    assert rates["auto"] == pytest.approx(rates["grid"], abs=0.75)
    for sweep in (result.mup, result.sp):
        assert sweep.search is not None
        assert sweep.search.flops == pytest.approx(sum(t.cost_flops for t in sweep.trials))
        assert all(trial.status != "failed" for trial in sweep.trials)
    assert len(result.target.losses) == 40
    again = t1.sweep(
        "digits", widths=[16, 32], target=64, lrs=result.mup.lrs, seeds=[0, 1], steps=40,
        engine="serial", search="auto", storage=folder / "sweep.journal",
    )  # fmt: skip
    assert again.n_trained == 0  # the transfer's own trials, found by the same search


def test_words_that_are_no_search_and_no_choice() -> None:
    with pytest.raises(InputError, match="search='fast': choose 'grid' or 'auto'"):
        t1.sweep(Toy(), **{**SMALL, "search": "fast"})
    with pytest.raises(InputError, match="choose='accuracy': choose 'loss' or 'evaluate'"):
        t1.sweep(Toy(), **SMALL, choose="accuracy")
    with pytest.raises(InputError, match="task Toy has no evaluate"):
        t1.sweep(Toy(), **SMALL, choose="evaluate")


def test_a_search_over_further_axes_begins_where_the_last_one_ended() -> None:
    result = t1.sweep(Toy(), **{**SMALL, "widths": [4]}, axes={"eps": [1e-8, 1e-6]})
    stopped = [t.axes["eps"] for t in result.trials if t.status == "stopped"]
    assert stopped == [1e-8] * 9
    assert len(result.combinations) == 2


def test_a_stopped_trial_survives_json() -> None:
    result = t1.sweep(Toy(), **{**SMALL, "widths": [4], "lrs": [2**-6]})
    stopped = next(t for t in result.trials if t.status == "stopped")
    assert json.loads(stopped.to_json())["stop"] == 4
    assert Trial.from_json(stopped.to_json()) == stopped
    assert math.isnan(stopped.final_loss)
