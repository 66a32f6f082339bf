"""Results of a sweep over learning rate, width and seed: optima, drift, penalties."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import Field

from thetaone.errors import MissingExtraError
from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_seconds
from thetaone.records._words import interval_words
from thetaone.records.laws import Optimum
from thetaone.records.sweeps._combination import Combination, comparable
from thetaone.records.sweeps._search import SearchCost
from thetaone.records.sweeps._trial import Choose, Trial

_LOSS: dict[Choose, str] = {"loss": "loss", "evaluate": "evaluation"}


class EngineDecision(Record):
    """How the trials were run, and the measurement behind it.

    Attributes:
        engine: ``"serial"``, ``"processes"``, ``"stacked"`` or ``"ray"``; ``"none"`` when every
            trial was found in the storage.
        n_processes: Trainings (or stacks) at a time [count].
        n_threads: Threads of each [count].
        stacks: Width -> models trained as one stack under vmap [count]; 1 is one by one.
        seconds: What was measured: ``"width 64, stacked"`` -> time of a step of one trial [s].
        reason: One sentence.
    """

    engine: str
    n_processes: int = 1
    n_threads: int = 1
    stacks: dict[int, int] = Field(default_factory=dict[int, int])
    seconds: dict[str, float] = Field(default_factory=dict[str, float])
    reason: str


class Drift(Record):
    """How far the best learning rate moved from the smallest to the largest width.

    Attributes:
        octaves: log2 of the ratio of the two best rates; 0 when the rate transfers [octaves].
        stderr: Standard error from the spread over seeds; NaN with one seed [octaves].
        interval: Two-sided interval at ``confidence`` [octaves].
        confidence: Coverage of ``interval``, in (0, 1).
        from_width: The smallest width.
        to_width: The largest width.
        bounded_only: An optimum sits on the edge of the grid: the drift is only a bound.
        axis: What grows from ``from_width`` to ``to_width``.
    """

    octaves: float
    stderr: float
    interval: tuple[float, float]
    confidence: float = 0.95
    from_width: int
    to_width: int
    bounded_only: bool = False
    axis: Literal["width", "depth"] = "width"

    def __str__(self) -> str:
        ends = interval_words(*self.interval, "+.2f")
        edge = " (an optimum is on the edge of the grid: widen lrs)" if self.bounded_only else ""
        return (
            f"drift {self.octaves:+.2f} octaves {ends} "
            f"over {self.axis} {self.from_width} → {self.to_width}{edge}"
        )


class SweepResult(Record):
    """Every trial of a sweep, and what they say about the learning rate.

    Attributes:
        task: Name of the task.
        parametrization: ``"mup"``, ``"sp"`` or the label of a recipe.
        optimizer: Name of the optimizer.
        base_width: Width whose learning rate is transferred.
        trials: All trials, ordered by width, further axes, rate, seed.
        engine: How they were run.
        optima: Width -> best learning rate; a width where every rate diverged is absent. With
            further axes, at the best combination of their values, as are drift and penalties.
        drift: Movement of the optimum over the widths; None with fewer than two optima.
        penalties: Width -> relative excess loss at the base's best rate over that width's best
            (0.01 is 1 %); inf when training diverges there.
        n_trained: Trials trained by this call [count].
        n_reused: Trials found in the storage [count].
        wall_seconds: Time of this call [s].
        axis: What grows: width, or depth at one width; optima and penalties are keyed by it.
        base_depth: Depth where nothing is rescaled; None where the task has one.
        notes: What is worth a word: stored trials left out, and why.
        axes: Further axes: name -> values.
        combinations: Each combination of these values with its own best rates.
        choose: What trials are compared by: training loss, or the task's ``evaluate``.
        search: What a search cost in place of the grid; None for a grid.

    Examples:
        >>> import thetaone as t1
        >>> result = t1.sweep(
        ...     "digits", widths=[16], lrs=[2**-7, 2**-5], seeds=[0], steps=2, engine="serial"
        ... )
        >>> len(result.trials), result.n_trained
        (2, 2)
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_sweep"

    task: str
    parametrization: str
    optimizer: str
    base_width: int
    trials: tuple[Trial, ...]
    engine: EngineDecision
    optima: dict[int, Optimum] = Field(default_factory=dict[int, Optimum])
    drift: Drift | None = None
    penalties: dict[int, float] = Field(default_factory=dict[int, float])
    n_trained: int
    n_reused: int
    wall_seconds: float
    notes: tuple[str, ...] = ()
    axis: Literal["width", "depth"] = "width"
    base_depth: int | None = None
    axes: dict[str, tuple[float, ...]] = Field(default_factory=dict[str, tuple[float, ...]])
    combinations: tuple[Combination, ...] = ()
    choose: Choose = "loss"
    search: SearchCost | None = None

    @property
    def best_axes(self) -> dict[str, float]:
        """Values of the further axes whose best rate has the lowest loss; empty without any."""
        best = min(self.combinations, key=lambda one: one.loss, default=None)
        return {} if best is None else dict(best.values)

    @property
    def judged(self) -> tuple[Trial, ...]:
        """The trials that optima, drift and penalties are read from.

        Those of the best combination of the further axes; of a search, the rates that it trained
        to their end with every seed.
        """
        best = tuple(sorted(self.best_axes.items()))
        return comparable(trial for trial in self.trials if trial.spec.axes == best)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths swept, ascending; depths where these grow at one width."""
        return tuple(sorted({self.size(trial) for trial in self.trials}))

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes, under the name they have when width grows."""
        return self.sizes

    @property
    def base_size(self) -> int:
        """The base width, or the base depth where depth grows."""
        return self.base_depth if self.axis == "depth" and self.base_depth else self.base_width

    @property
    def reference_size(self) -> int:
        """The size nearest to the base that has an optimum; the nearest one where none has."""
        return self._nearest(self.optima or self.sizes)

    def size(self, trial: Trial) -> int:
        """A trial's width, or its depth where depth grows."""
        return trial.depth if self.axis == "depth" and trial.depth else trial.width

    @property
    def lrs(self) -> tuple[float, ...]:
        """Learning rates swept, ascending."""
        return tuple(sorted({trial.lr for trial in self.trials}))

    @property
    def best_lr(self) -> float:
        """The best learning rate at the base width: the one to transfer.

        Of the width nearest to the base that has an optimum; where too few rates were trained for
        one, the rate with the lowest mean loss there. NaN when every training diverged or failed.
        """
        if self.optima:
            return 2.0 ** self.optima[self._nearest(self.optima)].log2_lr
        means = {
            lr: math.fsum(losses) / len(losses)
            for lr, losses in self.final_losses(self._nearest(self.widths)).items()
        }
        best = min(means, key=means.__getitem__, default=math.nan)
        return best if math.isfinite(means.get(best, math.nan)) else math.nan

    def _nearest(self, widths: Iterable[int]) -> int:
        return min(widths, key=lambda width: (abs(math.log(width / self.base_size)), width))

    def final_losses(self, width: int) -> dict[float, tuple[float, ...]]:
        """Learning rate -> loss of every seed that did not fail, at one width."""
        losses: dict[float, tuple[float, ...]] = {}
        for trial in sorted(self.judged, key=lambda trial: (trial.lr, trial.seed)):
            if self.size(trial) == width and trial.status != "failed":
                losses[trial.lr] = (*losses.get(trial.lr, ()), trial.score(self.choose))
        return losses

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row a trial.

        Columns: size, rate, seed, further axes, status, final loss and evaluation, cost, and the
        losses of every step as a tuple.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            raise MissingExtraError("pandas", "dataframe") from error
        return pandas.DataFrame([_row(trial) for trial in self.trials])

    def __str__(self) -> str:
        rows = [_optimum_row(self, width) for width in self.widths]
        columns = [
            self.axis,
            "parameters",
            "best log2 lr",
            "interval",
            _LOSS[self.choose],
            "penalty",
            "diverged",
        ]
        title = f"{self.task}: {self.parametrization}, {self.optimizer}"
        lines = [*_combinations(self), text_table(columns, rows, title=title)]
        if self.drift is not None:
            lines.append(str(self.drift))
        lines.append(
            f"{self.n_trained} trials trained, {self.n_reused} reused, "
            f"{format_seconds(self.wall_seconds)}; engine {self.engine.engine}: "
            f"{self.engine.reason}"
        )
        lines += [] if self.search is None else [str(self.search)]
        failed = [trial for trial in self.trials if trial.status == "failed"]
        if failed:
            lines.append(f"{len(failed)} trials failed; the first: {failed[0].reason}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _row(trial: Trial) -> dict[str, Any]:
    """A trial as a row of a data frame."""
    spec = trial.spec
    return {
        "parametrization": spec.rule, "width": spec.width, "depth": spec.depth, "lr": spec.lr,
        "seed": spec.seed, **trial.axes, "n_steps": spec.n_steps, "status": trial.status,
        "reason": trial.reason, "final_loss": trial.final_loss, "evaluation": trial.evaluation,
        "n_parameters": trial.n_parameters, "cost_flops": trial.cost_flops,
        "wall_seconds": trial.wall_seconds, "losses": trial.losses,
    }  # fmt: skip


def _combinations(result: SweepResult) -> list[str]:
    """The further axes: each combination with its best rate, and which is best; none without."""
    if not result.axes:
        return []
    best = result.best_axes
    rows = [
        [f"{one.values[name]:g}" for name in result.axes]
        + [f"{one.log2_lr:.2f}", f"{one.loss:.4f}", "best" if one.values == best else ""]
        for one in result.combinations
    ]
    columns = [*result.axes, "best log2 lr", _LOSS[result.choose], ""]
    size = f"{result.axis} {result.reference_size}"
    at = ", ".join(f"{name} {value:g}" for name, value in best.items())
    return [text_table(columns, rows, title=f"{result.task}, {size}: by axis"), "", f"With {at}:"]


def _optimum_row(result: SweepResult, width: int) -> list[str]:
    trials = [trial for trial in result.judged if result.size(trial) == width]
    diverged = sum(trial.status == "diverged" for trial in trials)
    parameters = f"{max(trial.n_parameters for trial in trials):,}"
    optimum = result.optima.get(width)
    if optimum is None:
        few = len({t.lr for t in trials if t.status != "failed"}) < 3
        why = "three or more rates needed" if few else "–"
        return [str(width), parameters, why, "–", "–", "–", f"{diverged}/{len(trials)}"]
    penalty = result.penalties.get(width, math.nan)
    return [
        str(width),
        parameters,
        f"{optimum.log2_lr:.2f}" + _doubt(optimum),
        interval_words(*optimum.interval),
        f"{optimum.loss:.4f}",
        f"{100 * penalty:.2f} %",
        f"{diverged}/{len(trials)}",
    ]


def _doubt(optimum: Optimum) -> str:
    if optimum.at_edge:
        return " (edge)"
    return " (flat: cannot tell)" if optimum.flat else ""
