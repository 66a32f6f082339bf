"""What ``record.plot()`` calls: a record's figure, drawn with matplotlib."""

from dataclasses import replace
from typing import Any, Protocol

from thetaone.records import (
    CoordinateCheck,
    Cost,
    EstimatorComparison,
    Frontier,
    PolicyRun,
    Schedule,
    SweepResult,
    TransferResult,
)
from thetaone.report.drawing import draw
from thetaone.report.figures._coordinates import update_figure
from thetaone.report.figures._estimators import estimators_figure
from thetaone.report.figures._frontier import frontier_figure
from thetaone.report.figures._learning_rate import learning_rate_figure
from thetaone.report.figures._policy import policy_figure
from thetaone.report.figures._schedule import schedule_figure
from thetaone.report.figures._timeline import timeline_figure


def coordinate_check(check: CoordinateCheck, **options: Any) -> Any:
    """Feature updates against size, one line a layer."""
    return draw(update_figure([check]), **options)


def plot_sweep(sweep: SweepResult, **options: Any) -> Any:
    """Training loss against learning rate, one curve a width."""
    return draw(learning_rate_figure([sweep]), **options)


def plot_frontier(frontier: Frontier, *, budget_bytes: int | None = None, **options: Any) -> Any:
    """Time of a step against peak memory."""
    return draw(frontier_figure(frontier, budget_bytes=budget_bytes), **options)


def plot_schedule(schedule: Schedule, **options: Any) -> Any:
    """Which stages run again, how often, from what is kept."""
    return draw(schedule_figure(schedule), **options)


def plot_cost(cost: Cost, *, budget_bytes: int | None = None, **options: Any) -> Any:
    """Operations of one training step, and the bytes alive meanwhile."""
    return draw(timeline_figure(cost.timeline, budget_bytes=budget_bytes), **options)


class PlannedMemory(Protocol):
    """What a study of a model's memory found: its frontier, and a plan when there was a budget."""

    @property
    def frontier(self) -> Frontier:
        """Time against memory."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """What was planned; None without a budget."""
        ...

    @property
    def cost(self) -> Cost | None:
        """The judge's replay of the plan."""
        ...


def plot_memory_plan(plan: PlannedMemory, **options: Any) -> Any:
    """Time against memory; beside it the chosen plan's operations and live bytes, if any."""
    budget = None if plan.schedule is None else plan.schedule.budget_bytes
    figure = frontier_figure(plan.frontier, budget_bytes=budget)
    if plan.cost is not None:
        timeline = timeline_figure(plan.cost.timeline, budget_bytes=budget)
        figure = replace(
            figure, panels=(*figure.panels, *timeline.panels), alt=f"{figure.alt} {timeline.alt}"
        )
    return draw(figure, **options)


def estimator_comparison(comparison: EstimatorComparison, **options: Any) -> Any:
    """Bias and efficiency of each estimator."""
    return draw(estimators_figure(comparison), **options)


def transfer(result: TransferResult, **options: Any) -> Any:
    """Figure 1 of Tensor Programs V: loss against learning rate, SP beside µP."""
    return draw(learning_rate_figure([result.sp, result.mup]), **options)


def plot_policy(run: PolicyRun, **options: Any) -> Any:
    """Return against environment steps."""
    return draw(policy_figure(run), **options)
