"""Trains what a search asks for, and counts what it cost against the grid."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from thetaone.records import (
    AxisValues,
    Choose,
    EngineDecision,
    Progress,
    ProgressEvent,
    SearchCost,
    TrainingLoop,
    Trial,
    TrialSpec,
    comparable,
    final_loss,
)
from thetaone.sweeps._optima import find_optima, loss_curves
from thetaone.sweeps._run import TrialRuns
from thetaone.sweeps.search._plan import Answers, Ask, plan_search

SHARE = 16  # of a training's steps: after one of so many parts the octaves are compared
LEAST_STEPS = 4  # of a training that is stopped; one of twice as many is not worth stopping


class Train(Protocol):
    """Trains specs, as ``run_trials`` does."""

    def __call__(self, specs: Sequence[TrialSpec], *, progress: Progress | None) -> TrialRuns:
        """Every spec's trial."""
        ...


Size = tuple[int, int]  # width and depth; depth 0 where there is none
Place = tuple[AxisValues, Size]


def search_trials(
    specs: Sequence[TrialSpec],
    train: Train,
    *,
    loop: TrainingLoop,
    choose: Choose = "loss",
    progress: Progress | None = None,
) -> tuple[TrialRuns, SearchCost]:
    """Find the best rate of every size and combination of further axes, one after the other.

    A search begins at the optimum of the one before: of the same combination at the size below,
    else of the same size under another combination.

    Args:
        specs: The grid that the search stands for.
        train: Trains specs, as ``run_trials`` does.
        loop: Its schedule says how much of a training's movement is done by a step.
        choose: What trials are compared by.
        progress: Called with every event; totals grow as the search asks.

    Returns:
        Every trial that it trained, and its cost against the grid.
    """
    run = _Search(train, progress, choose)
    groups: dict[Place, list[TrialSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.axes, (spec.width, spec.depth or 0)), []).append(spec)
    optima: dict[Place, float] = {}
    for place in sorted(groups):
        group = groups[place]
        run.search(group, stop=stop_of(loop, group[0].n_steps), start=_start(optima, place))
        if run.parts[-1].stopped:
            break
        best = run.optimum(place)
        if best is not None:
            optima[place] = best
    return run.runs(), run.cost(groups)


def stop_of(loop: TrainingLoop, n_steps: int) -> int:
    """Steps in which a training moves by a given share of all; all of them where it is short.

    A step moves as far as the schedule's factor says, so a warm-up is waited for.

    Examples:
        >>> stop_of(TrainingLoop(), 160), stop_of(TrainingLoop(), 7)
        (10, 7)
        >>> stop_of(TrainingLoop(schedule="warmup-linear:0.2"), 160)
        18
    """
    factors = [loop.factor(step, n_steps) for step in range(n_steps)]
    moved = list(itertools.accumulate(factors))
    stop = next(step for step, far in enumerate(moved, start=1) if far * SHARE >= moved[-1])
    stop = max(stop, LEAST_STEPS)
    return stop if 2 * stop <= n_steps else n_steps


def grid_steps(trials: Sequence[Trial], lrs: Sequence[float], n_steps: int) -> int:
    """Steps that a grid's trainings would run, as far as a search of the same size shows.

    Args:
        trials: Of the search, at one size.
        lrs: Rate of each training of the grid.
        n_steps: Of a training that does not diverge [count]; at a rate where one of the search did,
            or above it, a training stops where that one did.
    """
    diverged = [(t.lr, len(t.losses)) for t in trials if t.status == "diverged"]
    return sum(min((n for rate, n in diverged if rate <= lr), default=n_steps) for lr in lrs)


def _start(optima: Mapping[Place, float], place: Place) -> float | None:
    """The optimum of the size below under the same axes; else of the same size under others."""
    axes, size = place
    below = [other for other in optima if other[0] == axes and other[1] < size]
    beside = [other for other in optima if other[1] == size]
    return optima[max(below)] if below else optima[beside[-1]] if beside else None


@dataclass(slots=True)
class _Search:
    """A search over several sizes: what is done so far."""

    train: Train
    progress: Progress | None
    choose: Choose
    parts: list[TrialRuns] = field(default_factory=list[TrialRuns])
    trials: dict[TrialSpec, Trial] = field(default_factory=dict[TrialSpec, Trial])

    def search(self, group: Sequence[TrialSpec], *, stop: int, start: float | None) -> None:
        """Train one size's trials as the plan asks for them."""
        rates = {math.log2(spec.lr): spec.lr for spec in group}
        seeds = sorted({spec.seed for spec in group})
        n_steps = group[0].n_steps
        plan = plan_search(list(rates), seeds, n_steps=n_steps, stop=stop, start=start)
        try:
            ask = next(plan)
            while not (self.parts and self.parts[-1].stopped):
                ask = plan.send(self._answer(ask, group[0], rates))
        except StopIteration:
            return

    def _answer(self, ask: Ask, example: TrialSpec, rates: Mapping[float, float]) -> Answers:
        stop = 0 if ask.stop >= example.n_steps else ask.stop
        wanted = {
            (x, seed): replace(example, lr=rates.get(x, 2.0**x), seed=seed, stop=stop)
            for x in ask.log2_lrs
            for seed in ask.seeds
        }
        done = self.train(list(wanted.values()), progress=self._told)
        self.parts.append(done)
        self.trials.update(done.trials)
        return {
            key: self._loss(done.trials[spec]) if spec in done.trials else math.nan
            for key, spec in wanted.items()
        }

    def optimum(self, place: Place) -> float | None:
        """The best rate of one size under one combination [octaves]; None where all diverged."""
        axes, (width, depth) = place
        trials = [
            trial for trial in self.trials.values()
            if (trial.spec.axes, trial.width, trial.depth or 0) == (axes, width, depth)
        ]  # fmt: skip
        optima = find_optima(loss_curves(comparable(trials), choose=self.choose))
        return optima[width].log2_lr if optima else None

    def runs(self) -> TrialRuns:
        """Everything that was trained, as one run."""
        decisions = [part.decision for part in self.parts if part.decision.engine != "none"]
        longest = max(decisions, key=lambda decision: decision.n_processes, default=None)
        nothing = EngineDecision(engine="none", reason="every trial was in the storage")
        return TrialRuns(
            trials=dict(sorted(self.trials.items())), decision=longest or nothing,
            n_trained=sum(part.n_trained for part in self.parts),
            notes=tuple(dict.fromkeys(note for part in self.parts for note in part.notes)),
        )  # fmt: skip

    def cost(self, groups: Mapping[Place, Sequence[TrialSpec]]) -> SearchCost:
        """What was spent, and what the grid would have cost."""
        return SearchCost(
            flops=sum(trial.cost_flops for trial in self.trials.values()),
            grid_flops=sum(self._grid_flops(group) for group in groups.values()),
            n_trials=len(self.trials), n_grid=sum(map(len, groups.values())),
        )  # fmt: skip

    def _grid_flops(self, group: Sequence[TrialSpec]) -> float:
        """Of the trials of a grid of one size, a diverging one charged up to where it stops."""
        example = group[0]
        like = [
            trial for trial in self.trials.values()
            if (trial.width, trial.depth, trial.spec.axes)
            == (example.width, example.depth, example.axes)
        ]  # fmt: skip
        a_step = max((t.cost_flops / len(t.losses) for t in like if t.losses), default=0.0)
        return a_step * grid_steps(like, [spec.lr for spec in group], example.n_steps)

    def _loss(self, trial: Trial) -> float:
        """Loss by which the search goes on."""
        return final_loss(trial.losses) if trial.status == "stopped" else trial.score(self.choose)

    def _told(self, event: ProgressEvent) -> None:
        """Events of a part, with the counts of the whole search."""
        if self.progress is None or (event.kind == "planned" and self.parts):
            return
        before = len(self.trials)
        self.progress(
            event.model_copy(
                update={"n_done": before + event.n_done, "n_total": before + event.n_total}
            )
        )
