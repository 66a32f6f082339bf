"""The marks of a panel in SVG: series, bars, references and words, as text of elements.

Places are percent of the plot; lines lie in a stretched drawing of 1000 by 1000 units, with a
stroke that is not stretched. What a reader hovers over says its value.
"""

import math

from markupsafe import escape

from thetaone.report.drawing._axes import format_value
from thetaone.report.drawing._figure import Bars, Label, Panel, Reference, Series
from thetaone.report.drawing._places import percent_of, share

DASHES = {"dash": "6 4", "dot": "1.5 4", "dashdot": "7 4 1.5 4"}
_HATCHES = {"/": "hatch-slash", "x": "hatch-x", ".": "hatch-dot"}
_STRETCHED = '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">'
_SHIFTS = {"above": (0, -8), "below": (0, 17), "left": (-8, 4), "right": (8, 4)}
_ANCHORS = {"left": "end", "right": "start"}


def series_marks(series: Series, panel: Panel) -> list[str]:
    """Lines, bands, error bars and points of a series, in one group that can be hidden."""
    colour = f"var(--{series.colour})"
    parts = [*_lines(series, panel, colour), *_intervals(series, panel, colour)]
    points = "".join(_points(series, panel)) if series.symbol != "none" else ""
    if points:
        parts.append(f"<g {_paint(series, colour)}>{points}</g>")
    return [f'<g data-series="{escape(series.name)}">{"".join(parts)}</g>']


def bars_marks(bars: Bars, panel: Panel, key: str) -> list[str]:
    """Rectangles of one kind; hatching is drawn over the colour, with the same ones (``key``)."""
    half = bars.thickness / 2
    places: list[str] = []
    for left, right, row in zip(bars.left, bars.right, bars.y, strict=True):
        x, end = _clip(share(left, panel.x)), _clip(share(right, panel.x))
        top = 1 - share(row + half, panel.y)
        tall = share(row + half, panel.y) - share(row - half, panel.y)
        places.append(
            f'<rect x="{percent_of(x)}" y="{percent_of(top)}" width="{percent_of(end - x)}" '
            f'height="{percent_of(tall)}"/>'
        )
    rectangles = "".join(places)
    fill = f'fill="var(--{bars.colour})"'
    drawn = f'<g class="bar" {fill}>{rectangles}</g>'
    if bars.pattern:
        drawn = (
            f'<defs><g id="{escape(key)}">{rectangles}</g></defs>'
            f'<use class="bar" href="#{escape(key)}" {fill}/>'
            f'<use href="#{escape(key)}" fill="url(#{_HATCHES[bars.pattern]})"/>'
        )
    return [f'<g data-series="{escape(bars.name)}">{drawn}</g>']


def reference_marks(reference: Reference, panel: Panel) -> list[str]:
    """A line or a strip across the panel, with its words above the frame or at the right."""
    vertical, strip = reference.axis == "x", reference.upper is not None
    axis = panel.x if vertical else panel.y
    edges = (reference.value, reference.value if reference.upper is None else reference.upper)
    low, high = (_clip(share(edge, axis)) for edge in edges)
    colour = f"var(--{reference.colour})"
    if strip:
        along, extent = percent_of(low if vertical else 1 - high), percent_of(high - low)
        shape = f'x="{along}" width="{extent}" height="100%"' if vertical else (
            f'y="{along}" width="100%" height="{extent}"'
        )  # fmt: skip
        drawn = f'<rect fill="{colour}" {shape}/>'
    else:
        at = percent_of(low if vertical else 1 - low)
        ends = f'x1="{at}" x2="{at}" y2="100%"' if vertical else f'y1="{at}" y2="{at}" x2="100%"'
        drawn = f'<line stroke="{colour}" stroke-width="1.4"{_dashes(reference.dash)} {ends}/>'
    return [drawn, _reference_words(reference, panel)] if reference.label else [drawn]


def label_mark(label: Label, panel: Panel) -> str:
    """Words at a place, with a rim of paper that keeps them legible over lines."""
    dx, dy = _SHIFTS[label.align]
    x, y = percent_of(share(label.x, panel.x)), percent_of(1 - share(label.y, panel.y))
    return (
        f'<text class="label" fill="var(--{label.colour})" x="{x}" y="{y}" '
        f'dx="{dx}" dy="{dy}" '
        f'text-anchor="{_ANCHORS.get(label.align, "middle")}">{escape(label.text)}</text>'
    )


def _lines(series: Series, panel: Panel, colour: str) -> list[str]:
    paths: list[str] = []
    if series.spread == "band" and series.low:
        upper = _path(series.x, series.high, panel)
        lower = _path(series.x[::-1], series.low[::-1], panel)
        paths.append(f'<path class="shade" fill="{colour}" d="{upper}L{lower[1:]}Z"/>')
    line = _path(series.x, series.y, panel, steps=series.steps)
    if series.area and line:
        first, last = (_unit(share(series.x[end], panel.x)) for end in (0, -1))
        paths.append(f'<path class="shade" fill="{colour}" d="{line}L{last} 1000L{first} 1000Z"/>')
    if series.dash != "none" and line:
        paths.append(
            f'<path class="line" stroke="{colour}" stroke-width="{series.width:g}"'
            f'{_dashes(series.dash)} d="{line}"/>'
        )
    return [f"{_STRETCHED}{''.join(paths)}</svg>"] if paths else []


def _path(
    xs: tuple[float, ...], ys: tuple[float, ...], panel: Panel, *, steps: bool = False
) -> str:
    """A line through the finite points, broken at the others."""
    parts: list[str] = []
    pen_down = False
    for x, y in zip(xs, ys, strict=True):
        at = (share(x, panel.x), 1 - share(y, panel.y))
        if not all(map(math.isfinite, at)):
            pen_down = False
            continue
        across, down = _unit(at[0]), _unit(at[1])
        if not pen_down:
            parts.append(f"M{across} {down}")
        else:
            parts.append(f"H{across}V{down}" if steps else f"L{across} {down}")
        pen_down = True
    return "".join(parts)


def _intervals(series: Series, panel: Panel, colour: str) -> list[str]:
    if not series.low or series.spread != "bars":
        return []
    lines: list[str] = []
    for x, y, low, high in zip(series.x, series.y, series.low, series.high, strict=True):
        along = panel.x if series.horizontal else panel.y
        ends = [_clip(share(end, along)) for end in (low, high)]
        at = share(y, panel.y) if series.horizontal else share(x, panel.x)
        if ends[0] == ends[1] or not 0 <= at <= 1:
            continue
        if series.horizontal:
            place = (percent_of(ends[0]), percent_of(ends[1]), *(percent_of(1 - at),) * 2)
        else:
            place = (*(percent_of(at),) * 2, *(percent_of(1 - end) for end in ends))
        lines.append('<line x1="{}" x2="{}" y1="{}" y2="{}"/>'.format(*place))
    return [f'<g class="interval" stroke="{colour}">{"".join(lines)}</g>'] if lines else []


def _points(series: Series, panel: Panel) -> list[str]:
    notes = series.notes or ("",) * len(series.x)
    drawn: list[str] = []
    for x, y, note in zip(series.x, series.y, notes, strict=True):
        across, up = share(x, panel.x), share(y, panel.y)
        if 0 <= across <= 1 and 0 <= up <= 1:  # what is not in the panel is not on its edge
            drawn.append(
                f'<use href="#{series.symbol}" x="{percent_of(across)}" y="{percent_of(1 - up)}">'
                f"<title>{escape(hover(series.name, x, y, note, panel))}</title></use>"
            )
    return drawn


def hover(name: str, x: float, y: float, note: str, panel: Panel) -> str:
    """What a point says of itself."""
    place = format_value(x, panel.x.quantity)
    value = "" if panel.y.quantity == "category" else format_value(y, panel.y.quantity)
    lines = [name, f"{place}, {value}" if value else place, note]
    return "\n".join(line for line in lines if line)


def _paint(series: Series, colour: str) -> str:
    if series.symbol == "cross":
        return f'stroke="{colour}" stroke-width="2" fill="none"'
    if series.filled:
        return f'fill="{colour}" stroke="var(--paper)" stroke-width="1"'
    return f'fill="var(--paper)" stroke="{colour}" stroke-width="1.5"'


def _reference_words(reference: Reference, panel: Panel) -> str:
    strip = reference.upper is not None
    colour = "muted" if strip else reference.colour
    words = f'class="note" fill="var(--{colour})"'
    upper = reference.value if reference.upper is None else reference.upper
    if reference.axis == "y":
        at = percent_of(1 - _clip(share(upper, panel.y)))
        shift = 14 if strip else -5
        return f'<text {words} x="100%" y="{at}" dx="-4" dy="{shift}" text-anchor="end">' + (
            f"{escape(reference.label)}</text>"
        )
    at = _clip((share(reference.value, panel.x) + share(upper, panel.x)) / 2)
    others = sorted(share(o.value, panel.x) for o in panel.references if o.axis == "x" and o.label)
    anchor = "start" if at < 0.2 else "end" if at > 0.8 else "middle"
    if len(others) > 1:  # side by side, above the frame
        anchor = "end" if at <= others[0] and at > 0.2 else "start" if at < 0.8 else "end"
    return f'<text {words} x="{percent_of(at)}" dy="-6" text-anchor="{anchor}">' + (
        f"{escape(reference.label)}</text>"
    )


def _dashes(dash: str) -> str:
    return f' stroke-dasharray="{DASHES[dash]}"' if dash in DASHES else ""


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _unit(value: float) -> str:
    return f"{1000 * min(9.0, max(-9.0, value)):.1f}".removesuffix(".0")
