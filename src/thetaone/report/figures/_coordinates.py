"""Coordinate check: how much each layer's features move, as the model grows."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from thetaone.records import FEATURE_UPDATE, CoordinateCheck, LayerVerdict, block_kinds, listed
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
    """Feature update ‖Δh‖_RMS against size, log-log, one line a kind of layer, one panel a check.

    Layers that keep their size are blue and solid; those that fail are red, dashed, with crosses.

    Args:
        checks: Checks to set side by side, on one y axis.

    Returns:
        The figure, at the last step of each check.
    """
    kinds = [_kinds(check, FEATURE_UPDATE) for check in checks]
    values = [v for group in kinds for kind in group for seed in kind.row.values for v in seed]
    y = log_axis("RMS of the feature update", values)
    panels = tuple(
        Panel(
            title=parametrization_name(check.parametrization),
            x=size_axis(check.axis, check.sizes),
            y=y,
            series=tuple(_line(kind, check.sizes) for kind in group),
            height=380,
        )
        for check, group in zip(checks, kinds, strict=True)
    )
    title = f"Size of feature updates against {checks[0].axis}, one line per kind of layer"
    alt = " ".join(map(_sentence, checks))
    return Figure(key="coordinate-check", title=title, alt=alt, panels=panels)


def exponent_figure(checks: Sequence[CoordinateCheck]) -> Figure:
    """Fitted exponent of each layer's feature update with its interval; zero is Θ(1).

    Args:
        checks: Checks to set in one panel, one row a kind of layer.

    Returns:
        The figure, at the last step of each check.
    """
    kinds = {check.parametrization: _kinds(check, FEATURE_UPDATE) for check in checks}
    layers = _in_order(checks, kinds)
    y = category_axis(layers)
    series = tuple(
        _exponents(check, kinds[check.parametrization], layers, 0.16 * (1 if i == 0 else -1))
        for i, check in enumerate(checks)
    )
    values = [v for line in series for v in (*line.x, *line.low, *line.high)]
    bands = [kind.row.band for group in kinds.values() for kind in group]
    panel = Panel(
        title="",
        x=linear_axis(
            f"exponent of the feature update in {checks[0].axis}",
            [*values, *(edge for band in bands for edge in band), 0.0],
            quantity="exponent",
        ),
        y=y,
        series=series,
        bars=_bands(kinds[checks[0].parametrization], layers),
        references=(Reference(axis="x", value=0.0, label="Θ(1)", dash="solid"),),
        height=max(240, 26 * len(layers) + 90),
    )
    title = "Growth exponent of each layer's feature update"
    alt = " ".join(map(_sentence, checks))
    return Figure(key="exponents", title=title, alt=alt, panels=(panel,))


@dataclass(frozen=True, slots=True)
class _Kind:
    """Layers alike but for the number of their block: the one furthest from Θ(1) stands for all."""

    name: str
    row: LayerVerdict
    count: int

    @property
    def words(self) -> str:
        """Whom the row is of."""
        alike = f", the furthest of {self.count} alike" if self.count > 1 else ""
        return f"{self.row.layer}{alike}"


def _kinds(check: CoordinateCheck, quantity: str) -> list[_Kind]:
    last = check.steps[-1]
    rows = [row for row in check.rows if row.quantity == quantity and row.step == last]
    names = block_kinds(row.layer for row in check.rows)
    count = Counter(names[row.layer] for row in rows)
    alike: dict[tuple[str, str, bool], list[LayerVerdict]] = {}
    for row in rows:  # named alike whether all of them pass or some, so that checks share rows
        name = names[row.layer] if count[names[row.layer]] > 1 else row.layer
        alike.setdefault((name, row.role, row.passed), []).append(row)
    return [
        _Kind(name, max(rows, key=_distance), len(rows)) for (name, _, _), rows in alike.items()
    ]


def _distance(row: LayerVerdict) -> float:
    return math.inf if row.law is None else abs(row.law.exponent)


def _line(kind: _Kind, sizes: Sequence[int]) -> Series:
    row = kind.row
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
        notes=(f"{kind.words} ({row.role or 'no role'}), {exponent}",) * len(points),
    )


def _exponents(
    check: CoordinateCheck, kinds: Sequence[_Kind], layers: Sequence[str], offset: float
) -> Series:
    fitted = [(kind, kind.row.law) for kind in kinds if kind.row.law is not None]
    sp = check.parametrization == "sp"
    return Series(
        name=short_name(check.parametrization),
        x=tuple(law.exponent for _, law in fitted),
        y=tuple(len(layers) - 1 - layers.index(kind.name) + offset for kind, _ in fitted),
        low=tuple(law.interval[0] for _, law in fitted),
        high=tuple(law.interval[1] for _, law in fitted),
        horizontal=True,
        colour="sp" if sp else "mup",
        symbol="square" if sp else "circle",
        dash="none",
        notes=tuple(
            f"{kind.words}: "
            + ("passes" if kind.row.passed else "fails, " + (kind.row.cause or "no cause"))
            for kind, _ in fitted
        ),
    )


def _bands(kinds: Sequence[_Kind], layers: Sequence[str]) -> tuple[Bars, ...]:
    bounded = [kind for kind in kinds if all(map(math.isfinite, kind.row.band))]
    return (
        Bars(
            name="counts as Θ(1)",
            left=tuple(kind.row.band[0] for kind in bounded),
            right=tuple(kind.row.band[1] for kind in bounded),
            y=tuple(float(len(layers) - 1 - layers.index(kind.name)) for kind in bounded),
            thickness=0.9,
            colour="strip",
            tabulate=False,
        ),
    )


def _in_order(checks: Sequence[CoordinateCheck], kinds: dict[str, list[_Kind]]) -> tuple[str, ...]:
    """Names of all kinds, in order of execution, whichever check knows them."""
    names = dict.fromkeys(kind.name for group in kinds.values() for kind in group)
    layers: list[str] = []
    for check in checks:
        starred = block_kinds(row.layer for row in check.rows)
        layers += [name for row in check.rows for name in (row.layer, starred[row.layer])]
    first = {layer: place for place, layer in reversed(list(enumerate(layers)))}
    return tuple(sorted(names, key=lambda name: first[name]))


def _sentence(check: CoordinateCheck) -> str:
    name = short_name(check.parametrization)
    n_layers = len({row.layer for row in check.rows})
    if check.passed:
        return f"{name}: all {n_layers} layers pass."
    return (
        f"{name}: {len(check.failed_layers)} of {n_layers} layers fail: "
        + listed(check.failed_layers)
        + "."
    )


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values))
