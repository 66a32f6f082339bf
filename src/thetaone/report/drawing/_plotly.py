"""Figure data to Plotly: one JSON specification a panel, with colours still named by role.

A colour is written ``@role`` or ``@role/alpha`` and resolved last, by ``resolve`` here or by the
page's own script, which does it again when the reader's system turns dark.
"""

import math
from typing import Any

from thetaone.report.drawing._axes import format_value
from thetaone.report.drawing._figure import Axis, Bars, Label, Panel, Reference, Series
from thetaone.report.drawing._palette import THEMES

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SYMBOLS = {
    "circle": "circle",
    "square": "square",
    "diamond": "diamond",
    "triangle": "triangle-up",
    "cross": "x-thin",
    "star": "star",
}
_ANCHORS = {"above": (0, -14), "below": (0, 14), "left": (-8, 0), "right": (8, 0)}


def plotly_spec(panel: Panel) -> dict[str, Any]:
    """``data`` and ``layout`` of one panel, as plain JSON values with colours by role.

    Args:
        panel: What to draw.

    Returns:
        A specification that ``plotly.js`` takes after ``resolve``.
    """
    data = [_bars(bars, panel) for bars in panel.bars]
    for series in panel.series:
        if series.spread == "band" and series.low:
            data.append(_band(series))
        data.append(_scatter(series, panel))
    shapes = [_shape(reference) for reference in panel.references]
    notes = [_reference_note(r, panel) for r in panel.references if r.label]
    notes += [_label_note(label, panel) for label in panel.labels]
    layout = {
        "height": panel.height,
        "margin": {"l": 56, "r": 14, "t": 24, "b": 46},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": "@ink"},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "@paper",
            "bordercolor": "@muted",
            "font": {"family": FONT, "color": "@ink"},
        },
        "dragmode": False,
        "barmode": "overlay",
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
        "shapes": shapes,
        "annotations": notes,
    }
    return {"data": data, "layout": layout}


def resolve(spec: Any, theme: str = "light") -> Any:
    """The specification with every colour role replaced by a colour.

    Examples:
        >>> resolve({"color": "@ink", "fill": "@ink/0.5"})
        {'color': '#1c1e21', 'fill': 'rgba(28,30,33,0.5)'}
    """
    if isinstance(spec, dict):
        return {key: resolve(value, theme) for key, value in spec.items()}
    if isinstance(spec, list):
        return [resolve(value, theme) for value in spec]
    if isinstance(spec, str) and spec.startswith("@"):
        role, _, alpha = spec[1:].partition("/")
        colour = THEMES[theme][role]
        if not alpha:
            return colour
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{alpha})"
    return spec


def _axis(axis: Axis) -> dict[str, Any]:
    rows = axis.quantity == "category"
    return {
        "type": "log" if axis.log else "linear",
        "range": [_place(value, axis) for value in axis.range],
        "tickmode": "array",
        "tickvals": [value for value, _ in axis.ticks],
        "ticktext": [text for _, text in axis.ticks],
        "title": {"text": axis.label, "standoff": 8, "font": {"color": "@muted", "size": 12}},
        "automargin": True,
        "fixedrange": True,
        "zeroline": False,
        "showgrid": not rows,
        "gridcolor": "@grid",
        "gridwidth": 1,
        "showline": not rows,
        "linecolor": "@muted",
        "ticks": "" if rows else "outside",
        "ticklen": 4,
        "tickcolor": "@muted",
    }


def _scatter(series: Series, panel: Panel) -> dict[str, Any]:
    lines, points = series.dash != "none", series.symbol != "none"
    mode = "+".join(name for name, on in (("lines", lines), ("markers", points)) if on)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": series.name,
        "mode": mode or "markers",
        "x": list(series.x),
        "y": [value if math.isfinite(value) else None for value in series.y],
        "text": _hover(series, panel),
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": True,
    }
    if lines:
        shape = "hv" if series.steps else "linear"
        trace["line"] = {
            "color": f"@{series.colour}",
            "width": series.width,
            "dash": series.dash,
            "shape": shape,
        }
    if points:
        trace["marker"] = _marker(series)
    if series.area:
        trace |= {"fill": "tozeroy", "fillcolor": f"@{series.colour}/0.18"}
    if series.low and series.spread == "bars":
        centre = series.x if series.horizontal else series.y
        trace["error_x" if series.horizontal else "error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [high - c for high, c in zip(series.high, centre, strict=True)],
            "arrayminus": [c - low for low, c in zip(series.low, centre, strict=True)],
            "color": f"@{series.colour}",
            "thickness": 1.3,
            "width": 3,
        }
    return trace


def _marker(series: Series) -> dict[str, Any]:
    thin = series.symbol == "cross"
    big = series.symbol == "star"
    name = _SYMBOLS[series.symbol]
    return {
        "symbol": name if series.filled else f"{name}-open",
        "size": 13 if big else 8 if thin else 7,
        "color": f"@{series.colour}",
        "line": {
            "width": 2 if thin else 1.4 if not series.filled else 1,
            "color": f"@{series.colour}" if thin or not series.filled else "@paper",
        },
    }


def _band(series: Series) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": series.name,
        "mode": "lines",
        "x": [*series.x, *reversed(series.x)],
        "y": [*series.high, *reversed(series.low)],
        "fill": "toself",
        "fillcolor": f"@{series.colour}/0.18",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _bars(bars: Bars, panel: Panel) -> dict[str, Any]:
    names = dict(panel.y.ticks)
    lengths = [right - left for left, right in zip(bars.left, bars.right, strict=True)]
    quantity = panel.x.quantity
    return {
        "type": "bar",
        "orientation": "h",
        "name": bars.name,
        "base": list(bars.left),
        "x": lengths,
        "y": list(bars.y),
        "width": bars.thickness,
        "text": [
            f"{names.get(y, '')}<br>{bars.name}: {format_value(length, quantity)}"
            for y, length in zip(bars.y, lengths, strict=True)
        ],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": f"@{bars.colour}",
            "line": {"width": 0.5, "color": "@paper"},
            "pattern": {
                "shape": bars.pattern,
                "fillmode": "overlay",
                "fgcolor": "@paper/0.75",
                "size": 6,
                "solidity": 0.25,
            },
        },
    }


def _hover(series: Series, panel: Panel) -> list[str]:
    notes = series.notes or ("",) * len(series.x)
    texts: list[str] = []
    for x, y, note in zip(series.x, series.y, notes, strict=True):
        place = format_value(x, panel.x.quantity)
        value = "" if panel.y.quantity == "category" else format_value(y, panel.y.quantity)
        lines = [series.name, f"{place}, {value}" if value else place, note]
        texts.append("<br>".join(line for line in lines if line))
    return texts


def _shape(reference: Reference) -> dict[str, Any]:
    along = "x" if reference.axis == "x" else "y"
    across = "y" if along == "x" else "x"
    strip = reference.upper is not None
    colour = f"@{reference.colour}"
    return {
        "type": "rect" if strip else "line",
        "layer": "below",
        f"{along}ref": along,
        f"{along}0": reference.value,
        f"{along}1": reference.upper if strip else reference.value,
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        "line": {"width": 0 if strip else 1.4, "color": colour, "dash": reference.dash},
        **({"fillcolor": colour} if strip else {}),
    }


def _reference_note(reference: Reference, panel: Panel) -> dict[str, Any]:
    colour = "@muted" if reference.upper is not None else f"@{reference.colour}"
    note = {"text": reference.label, "showarrow": False, "font": {"size": 11, "color": colour}}
    if reference.axis == "x":  # above the frame, where no data are
        others = [other.value for other in panel.references if other.axis == "x" and other.label]
        anchor = "center"
        if len(others) > 1:
            anchor = "right" if reference.value == min(others) else "left"
        centre = reference.value if reference.upper is None else _middle(reference, panel.x)
        place = {"x": _place(centre, panel.x), "xref": "x", "y": 1, "yref": "paper"}
        return note | place | {"xanchor": anchor, "yanchor": "bottom"}
    top = reference.value if reference.upper is None else reference.upper
    place = {"x": 1, "xref": "paper", "y": _place(top, panel.y), "yref": "y"}
    below = reference.upper is not None
    return note | place | {"xanchor": "right", "yanchor": "top" if below else "bottom"}


def _label_note(label: Label, panel: Panel) -> dict[str, Any]:
    shift_x, shift_y = _ANCHORS[label.align]
    return {
        "text": label.text,
        "showarrow": False,
        "x": _place(label.x, panel.x),
        "y": _place(label.y, panel.y),
        "xshift": shift_x,
        "yshift": -shift_y,
        "xanchor": {"left": "right", "right": "left"}.get(label.align, "center"),
        "font": {"color": f"@{label.colour}", "size": 12},
        "bgcolor": "@paper/0.85",
    }


def _middle(reference: Reference, axis: Axis) -> float:
    upper = reference.value if reference.upper is None else reference.upper
    if axis.log:
        return math.sqrt(reference.value * upper)
    return (reference.value + upper) / 2


def _place(value: float, axis: Axis) -> float:
    return math.log10(value) if axis.log else value
