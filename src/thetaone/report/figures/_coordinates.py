"""Coordinate check: how much each layer's features move, as the model grows."""

import math
from collections.abc import Sequence
from statistics import fmean

from thetaone.records import FEATURE_UPDATE, CoordinateCheck, LayerVerdict
from thetaone.report.drawing import (
    Bars,
    Figure,
    Panel,
    Reference,
    Series,
    Symbol,
    category_axis,
    linear_axis,
    log_axis,
    parametrization_name,
    short_name,
    signed,
    size_axis,
)

ROLE_SYMBOLS: dict[str, Symbol] = {
    "input": "square",
    "hidden": "circle",
    "output": "diamond",
    "vector": "triangle",
}


def update_figure(checks: Sequence[CoordinateCheck]) -> Figure:
    """Feature update ‖Δh‖_RMS against size, log-log, one line a layer, one panel a check.

    Layers that keep their size are blue and solid; those that fail are red, dashed, with crosses.

    Args:
        checks: Checks to set side by side, on one y axis.

    Returns:
        The figure, at the last step of each check.
    """
    rows = [_rows(check, FEATURE_UPDATE) for check in checks]
    values = [v for group in rows for row in group for seed in row.values for v in seed]
    y = log_axis("RMS of the feature update", values)
    panels = tuple(
        Panel(
            title=parametrization_name(check.parametrization),
            x=size_axis(check.axis, check.sizes),
            y=y,
            series=tuple(_line(row, check.sizes) for row in group),
            height=380,
        )
        for check, group in zip(checks, rows, strict=True)
    )
    title = f"Size of feature updates against {checks[0].axis}, one line per layer"
    alt = " ".join(map(_sentence, checks))
    return Figure(key="coordinate-check", title=title, alt=alt, panels=panels)


def exponent_figure(checks: Sequence[CoordinateCheck]) -> Figure:
    """Fitted exponent of each layer's feature update with its interval; zero is Θ(1).

    Args:
        checks: Checks to set in one panel, one row a layer.

    Returns:
        The figure, at the last step of each check.
    """
    rows = {check.parametrization: _rows(check, FEATURE_UPDATE) for check in checks}
    layers = tuple(dict.fromkeys(row.layer for group in rows.values() for row in group))
    y = category_axis(layers)
    series = tuple(
        _exponents(check, rows[check.parametrization], layers, 0.16 * (1 if i == 0 else -1))
        for i, check in enumerate(checks)
    )
    values = [v for line in series for v in (*line.x, *line.low, *line.high)]
    bands = [row.band for group in rows.values() for row in group]
    panel = Panel(
        title="",
        x=linear_axis(
            f"exponent of the feature update in {checks[0].axis}",
            [*values, *(edge for band in bands for edge in band), 0.0],
            quantity="exponent",
        ),
        y=y,
        series=series,
        bars=_bands(rows[checks[0].parametrization], layers),
        references=(Reference(axis="x", value=0.0, label="Θ(1)", dash="solid"),),
        height=max(240, 26 * len(layers) + 90),
    )
    title = "Growth exponent of each layer's feature update"
    alt = " ".join(map(_sentence, checks))
    return Figure(key="exponents", title=title, alt=alt, panels=(panel,))


def _rows(check: CoordinateCheck, quantity: str) -> list[LayerVerdict]:
    last = check.steps[-1]
    return [row for row in check.rows if row.quantity == quantity and row.step == last]


def _line(row: LayerVerdict, sizes: Sequence[int]) -> Series:
    by_size = [[v for v in at if math.isfinite(v)] for at in zip(*row.values, strict=True)]
    points = [(size, at) for size, at in zip(sizes, by_size, strict=True) if at and min(at) > 0]
    exponent = "no exponent" if row.law is None else f"exponent {signed(row.law.exponent)}"
    return Series(
        name="passes" if row.passed else "fails",
        x=tuple(float(size) for size, _ in points),
        y=tuple(_geometric_mean(at) for _, at in points),
        low=tuple(min(at) for _, at in points),
        high=tuple(max(at) for _, at in points),
        colour="mup" if row.passed else "bad",
        symbol=ROLE_SYMBOLS.get(row.role, "circle") if row.passed else "cross",
        dash="solid" if row.passed else "dash",
        width=1.3,
        notes=(f"{row.layer} ({row.role or 'no role'}), {exponent}",) * len(points),
    )


def _exponents(
    check: CoordinateCheck, rows: Sequence[LayerVerdict], layers: Sequence[str], offset: float
) -> Series:
    fitted = [(row, row.law) for row in rows if row.law is not None]
    sp = check.parametrization == "sp"
    return Series(
        name=short_name(check.parametrization),
        x=tuple(law.exponent for _, law in fitted),
        y=tuple(len(layers) - 1 - layers.index(row.layer) + offset for row, _ in fitted),
        low=tuple(law.interval[0] for _, law in fitted),
        high=tuple(law.interval[1] for _, law in fitted),
        horizontal=True,
        colour="sp" if sp else "mup",
        symbol="square" if sp else "circle",
        dash="none",
        notes=tuple(
            f"{row.layer}: {'passes' if row.passed else 'fails, ' + (row.cause or 'no cause')}"
            for row, _ in fitted
        ),
    )


def _bands(rows: Sequence[LayerVerdict], layers: Sequence[str]) -> tuple[Bars, ...]:
    known = [row for row in rows if all(map(math.isfinite, row.band))]
    return (
        Bars(
            name="counts as Θ(1)",
            left=tuple(row.band[0] for row in known),
            right=tuple(row.band[1] for row in known),
            y=tuple(float(len(layers) - 1 - layers.index(row.layer)) for row in known),
            thickness=0.9,
            colour="strip",
            tabulate=False,
        ),
    )


def _sentence(check: CoordinateCheck) -> str:
    name = short_name(check.parametrization)
    n_layers = len({row.layer for row in check.rows})
    if check.passed:
        return f"{name}: all {n_layers} layers pass."
    return (
        f"{name}: {len(check.failed_layers)} of {n_layers} layers fail: "
        + ", ".join(check.failed_layers)
        + "."
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values))
