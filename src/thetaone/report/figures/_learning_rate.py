"""Training loss against learning rate, one curve a width: Figure 1 of Tensor Programs V."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from thetaone.records import SweepResult
from thetaone.report.drawing import (
    Axis,
    Figure,
    Panel,
    Reference,
    Series,
    Symbol,
    format_value,
    linear_axis,
    log_axis,
    parametrization_name,
    ramp,
)

SYMBOLS: tuple[Symbol, ...] = ("circle", "square", "diamond", "triangle")


def learning_rate_figure(sweeps: Sequence[SweepResult]) -> Figure:
    """Final training loss against learning rate: one panel a parametrization, one curve a width.

    Means over seeds with ± one standard error; a star at each fitted vertex; a cross on the upper
    edge where at least one seed diverged. Losses above that of an untrained model are cut off.

    Args:
        sweeps: One a parametrization, over the same grid; drawn left to right on one y axis.

    Returns:
        The figure.
    """
    y = loss_axis(sweeps)
    x = log_axis("learning rate", [lr for sweep in sweeps for lr in sweep.lrs], quantity="rate")
    panels = tuple(
        Panel(
            title=parametrization_name(sweep.parametrization),
            x=x,
            y=y,
            series=(*_curves(sweep), *_divergences(sweep, y), *_vertices(sweep)),
            references=_base_optimum(sweep),
            height=400,
        )
        for sweep in sweeps
    )
    title = "Training loss against learning rate, one curve per width"
    alt = " ".join(_sentence(sweep) for sweep in sweeps)
    return Figure(key="learning-rate", title=title, alt=alt, panels=panels)


def loss_axis(sweeps: Sequence[SweepResult]) -> Axis:
    """One y axis for all panels: from the best mean loss up to the loss before any training."""
    trials = [trial for sweep in sweeps for trial in sweep.judged if trial.status != "failed"]
    untrained = [trial.losses[0] for trial in trials if trial.losses]
    finite = [trial.final_loss for trial in trials if math.isfinite(trial.final_loss)]
    ceiling = max((loss for loss in untrained if math.isfinite(loss)), default=math.inf)
    return linear_axis("training loss", [min(loss, ceiling) for loss in finite], pad=0.06)


def _curves(sweep: SweepResult) -> list[Series]:
    curves: list[Series] = []
    for index, width in enumerate(sweep.widths):
        points = [(lr, v) for lr, v in sweep.final_losses(width).items() if _finite(v)]
        means = tuple(fmean(values) for _, values in points)
        errors = tuple(_stderr(values) for _, values in points)
        curves.append(
            Series(
                name=f"width {width}",
                x=tuple(lr for lr, _ in points),
                y=means,
                low=tuple(mean - error for mean, error in zip(means, errors, strict=True)),
                high=tuple(mean + error for mean, error in zip(means, errors, strict=True)),
                colour=ramp(index, len(sweep.widths)),
                symbol=SYMBOLS[index % len(SYMBOLS)],
                notes=tuple(f"{len(values)} seed{'s' * (len(values) > 1)}" for _, values in points),
            )
        )
    return curves


def _divergences(sweep: SweepResult, y: Axis) -> list[Series]:
    crosses: list[Series] = []
    for index, width in enumerate(sweep.widths):
        losses = sweep.final_losses(width)
        lrs = tuple(lr for lr, values in losses.items() if not _finite(values))
        if lrs:
            counts = (sum(not math.isfinite(loss) for loss in losses[lr]) for lr in lrs)
            crosses.append(
                Series(
                    name="diverged",
                    x=lrs,
                    y=(y.range[1] - 0.012 * (index + 1) * (y.range[1] - y.range[0]),) * len(lrs),
                    colour=ramp(index, len(sweep.widths)),
                    symbol="cross",
                    dash="none",
                    notes=tuple(
                        f"width {width}: {count} of {len(losses[lr])} seeds diverged"
                        for count, lr in zip(counts, lrs, strict=True)
                    ),
                )
            )
    return crosses


def _vertices(sweep: SweepResult) -> list[Series]:
    stars: list[Series] = []
    for index, width in enumerate(sweep.widths):
        best = sweep.optima.get(width)
        if best is not None:
            edge = ", on the edge of the grid: only a bound" if best.at_edge else ""
            stars.append(
                Series(
                    name="best rate (fitted)",
                    x=(2.0**best.log2_lr,),
                    y=(best.loss,),
                    low=(2.0 ** _finite_or(best.interval[0], best.log2_lr),),
                    high=(2.0 ** _finite_or(best.interval[1], best.log2_lr),),
                    horizontal=True,
                    colour=ramp(index, len(sweep.widths)),
                    symbol="star",
                    dash="none",
                    notes=(f"best for width {width}{edge}",),
                )
            )
    return stars


def _base_optimum(sweep: SweepResult) -> tuple[Reference, ...]:
    if not math.isfinite(sweep.best_lr):
        return ()
    label = f"best at {sweep.axis} {sweep.reference_size}"
    return (Reference(axis="x", value=sweep.best_lr, label=label, dash="dot"),)


def _sentence(sweep: SweepResult) -> str:
    rates = ", ".join(
        f"{format_value(2.0**best.log2_lr, 'rate')} at {sweep.axis} {width}"
        for width, best in sorted(sweep.optima.items())
    )
    diverged = sum(trial.status == "diverged" for trial in sweep.judged)
    tail = f" {diverged} of {len(sweep.judged)} trainings diverged." if diverged else ""
    name = parametrization_name(sweep.parametrization)
    return f"{name}: the best learning rate is {rates or 'not determined'}.{tail}"


def _finite(values: Sequence[float]) -> bool:
    return bool(values) and all(math.isfinite(value) for value in values)


def _finite_or(value: float, fallback: float) -> float:
    return value if math.isfinite(value) else fallback


def _stderr(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
