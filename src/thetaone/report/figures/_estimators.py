"""Estimators of one gradient side by side: is it right, and what does a digit cost?"""

import math

from thetaone.records import EstimatorComparison, EstimatorRow
from thetaone.report.drawing import (
    Axis,
    Figure,
    Label,
    Panel,
    Reference,
    Series,
    Symbol,
    category_axis,
    linear_axis,
    log_axis,
)

# drawn alike: colour and symbol of each group, in the order of the legend
_GROUPS: dict[str, tuple[str, Symbol]] = {
    "agrees": ("mup", "circle"),
    "biased, and says so": ("sp", "diamond"),
    "too noisy to tell": ("muted", "triangle"),
    "not to be trusted here": ("bad", "cross"),
}


def estimators_figure(comparison: EstimatorComparison) -> Figure:
    """Bias in standard errors, and efficiency 1 / (variance · seconds), one row an estimator.

    Args:
        comparison: What ``compare_estimators`` returned.

    Returns:
        The figure: left the bias with the limit that chance keeps, right the efficiency.
    """
    names = [row.estimator for row in comparison.rows]
    height = max(240, 34 * len(names) + 100)
    y = category_axis(names)
    panels = (_bias(comparison, y, height), _efficiency(comparison, y, height))
    take = f" Recommended: {comparison.recommendation}." if comparison.recommendation else ""
    verdicts = ", ".join(f"{row.estimator} {row.verdict}" for row in comparison.rows)
    return Figure(
        key=f"estimators-{comparison.problem}",
        title=f"Estimators of one gradient: {comparison.problem}",
        alt=f"{verdicts}.{take}",
        panels=panels,
    )


def _bias(comparison: EstimatorComparison, y: Axis, height: int) -> Panel:
    limit = max((row.bias_limit for row in comparison.rows), default=4.5)
    series = _series(comparison, [(row.bias_z, 0.0) for row in comparison.rows])
    shown = [x for line in series for x in line.x]
    return Panel(
        title="Bias",
        x=linear_axis("largest bias / standard error", [-limit, limit, *shown]),
        y=y,
        series=series,
        references=(
            Reference(axis="x", value=-limit, upper=limit, colour="strip"),
            Reference(axis="x", value=0.0, dash="solid"),
        ),
        height=height,
    )


def _efficiency(comparison: EstimatorComparison, y: Axis, height: int) -> Panel:
    values = [(row.efficiency, row.efficiency_stderr) for row in comparison.rows]
    x = log_axis("1 / (variance · seconds)", [value for value, _ in values])
    return Panel(
        title="Efficiency: more is better",
        x=x,
        y=y,
        series=_series(comparison, values),
        labels=tuple(
            Label(x=x.range[0], y=float(len(values) - 1 - index), text="no noise", align="right")
            for index, (value, _) in enumerate(values)
            if math.isinf(value)
        ),
        height=height,
    )


def _series(
    comparison: EstimatorComparison, values: list[tuple[float, float]]
) -> tuple[Series, ...]:
    """Values with their standard errors, in the rows of their estimators, one series a group."""
    series: list[Series] = []
    for name, (colour, symbol) in _GROUPS.items():
        kept = [
            (value, error, len(values) - 1 - index, row)
            for index, (row, (value, error)) in enumerate(zip(comparison.rows, values, strict=True))
            if _group(row) == name and math.isfinite(value)
        ]
        if not kept:
            continue
        with_errors = any(error for _, error, _, _ in kept)
        series.append(
            Series(
                name=name,
                x=tuple(value for value, _, _, _ in kept),
                y=tuple(float(place) for _, _, place, _ in kept),
                # on a logarithmic axis an interval must not reach 0
                low=tuple(max(v - e, v / 100) for v, e, _, _ in kept) if with_errors else (),
                high=tuple(v + e for v, e, _, _ in kept) if with_errors else (),
                horizontal=True,
                colour=colour,
                symbol=symbol,
                dash="none",
                notes=tuple(_note(row) for _, _, _, row in kept),
            )
        )
    return tuple(series)


def _group(row: EstimatorRow) -> str:
    if not row.unbiased:
        return "biased, and says so"
    if row.verdict == "too noisy to tell":
        return row.verdict
    return "agrees" if row.trusted else "not to be trusted here"


def _note(row: EstimatorRow) -> str:
    claim = "" if row.unbiased else f" ({row.declared})"
    return f"{row.estimator}: {row.verdict}{claim}"
