"""Estimators of one gradient side by side: is it right, and what does a digit cost?"""

import math

from thetaone.records.estimates import EstimatorComparison, EstimatorRow
from thetaone.report.axes import category_axis, linear_axis, log_axis
from thetaone.report.figure import Axis, Figure, Panel, Reference, Series


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
        key="estimators",
        title=f"Estimators of one gradient: {comparison.problem}",
        alt=f"{verdicts}.{take}",
        panels=panels,
    )


def _bias(comparison: EstimatorComparison, y: Axis, height: int) -> Panel:
    limit = max((row.bias_limit for row in comparison.rows), default=4.5)
    series = tuple(
        _points(comparison, name, good, [row.bias_z for row in comparison.rows])
        for name, good in (("agrees", True), ("does not", False))
    )
    shown = [x for line in series for x in line.x]
    return Panel(
        title="Bias",
        x=linear_axis("largest bias / standard error", [-limit, limit, *shown]),
        y=y,
        series=tuple(line for line in series if line.x),
        references=(
            Reference(axis="x", value=-limit, upper=limit, colour="strip"),
            Reference(axis="x", value=0.0, dash="solid"),
        ),
        height=height,
    )


def _efficiency(comparison: EstimatorComparison, y: Axis, height: int) -> Panel:
    values = [row.efficiency for row in comparison.rows]
    series = tuple(
        _points(comparison, name, good, values)
        for name, good in (("agrees", True), ("does not", False))
    )
    return Panel(
        title="Efficiency: more is better",
        x=log_axis("1 / (variance · seconds)", values),
        y=y,
        series=tuple(line for line in series if line.x),
        height=height,
    )


def _points(comparison: EstimatorComparison, name: str, good: bool, values: list[float]) -> Series:
    rows = comparison.rows
    kept = [
        (value, len(rows) - 1 - index, row)
        for index, (row, value) in enumerate(zip(rows, values, strict=True))
        if _is_good(row) == good and math.isfinite(value)
    ]
    return Series(
        name=name,
        x=tuple(value for value, _, _ in kept),
        y=tuple(float(place) for _, place, _ in kept),
        colour="mup" if good else "bad",
        symbol="circle" if good else "cross",
        dash="none",
        notes=tuple(f"{row.estimator}: {row.verdict}" for _, _, row in kept),
    )


def _is_good(row: EstimatorRow) -> bool:
    return row.verdict in ("agrees", "no reference", "biased as declared")
