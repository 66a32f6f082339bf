"""The best learning rate against width: flat when it transfers."""

import math
from collections.abc import Sequence

from thetaone.records import SweepResult
from thetaone.report.drawing import (
    Figure,
    Panel,
    Reference,
    Series,
    format_value,
    log_axis,
    short_name,
    signed,
    size_axis,
)

TOLERANCE_OCTAVES = 0.5  # a learning rate this close to the best costs little: half a grid step


def drift_figure(sweeps: Sequence[SweepResult], *, tolerance: float = TOLERANCE_OCTAVES) -> Figure:
    """Best learning rate against width, one line a parametrization, with its interval.

    Args:
        sweeps: One a parametrization.
        tolerance: Half height of the strip around the first sweep's base optimum [octaves].

    Returns:
        The figure.
    """
    lines = tuple(_line(sweep) for sweep in sweeps)
    widths = sorted({width for sweep in sweeps for width in sweep.widths})
    anchor = sweeps[0].best_lr
    strip = _strip(anchor, tolerance, sweeps[0].reference_size)
    values = [value for line in lines for value in (*line.y, *line.low, *line.high)]
    edges = [anchor * 2**tolerance, anchor / 2**tolerance]
    panel = Panel(
        title="",
        x=size_axis(sweeps[0].axis, widths),
        y=log_axis("best learning rate", [*values, *edges], quantity="rate"),
        series=lines,
        references=strip,
        height=330,
    )
    alt = " ".join(_sentence(sweep) for sweep in sweeps)
    return Figure(
        key="drift", title=f"Best learning rate against {sweeps[0].axis}", alt=alt, panels=(panel,)
    )


def _line(sweep: SweepResult) -> Series:
    best = sorted(sweep.optima.items())
    low, high = zip(*(optimum.interval for _, optimum in best), strict=True) if best else ((), ())
    centre = tuple(optimum.log2_lr for _, optimum in best)
    return Series(
        name=short_name(sweep.parametrization),
        x=tuple(float(width) for width, _ in best),
        y=tuple(2.0**value for value in centre),
        low=tuple(2.0 ** (v if math.isfinite(v) else c) for v, c in zip(low, centre, strict=True)),
        high=tuple(
            2.0 ** (v if math.isfinite(v) else c) for v, c in zip(high, centre, strict=True)
        ),
        colour="sp" if sweep.parametrization == "sp" else "mup",
        symbol="square" if sweep.parametrization == "sp" else "circle",
        dash="dash" if sweep.parametrization == "sp" else "solid",
        width=2.0,
        notes=tuple("edge of the grid: a bound" if o.at_edge else "" for _, o in best),
    )


def _strip(anchor: float, tolerance: float, width: int) -> tuple[Reference, ...]:
    if not math.isfinite(anchor):
        return ()
    return (
        Reference(
            axis="y",
            value=anchor / 2**tolerance,
            upper=anchor * 2**tolerance,
            label=f"within {tolerance:g} octave of the best at width {width}",
            colour="strip",
        ),
    )


def _sentence(sweep: SweepResult) -> str:
    name = short_name(sweep.parametrization)
    if sweep.drift is None:
        return f"{name}: fewer than two sizes have a best rate, so there is no drift."
    drift = sweep.drift
    first, last = (
        format_value(2.0 ** sweep.optima[width].log2_lr, "rate")
        for width in (drift.from_width, drift.to_width)
    )
    return (
        f"{name}: from {first} at width {drift.from_width} to {last} at width {drift.to_width}, "
        f"{signed(drift.octaves)} octaves."
    )
