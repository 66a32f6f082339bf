"""The legend of a figure: one entry a name, with a swatch that shows line, symbol and pattern."""

from dataclasses import dataclass

from markupsafe import Markup

from thetaone.report.drawing._figure import Bars, Dash, Figure, Series, Symbol

_DASHES: dict[Dash, str] = {
    "solid": "",
    "dash": ' stroke-dasharray="5 3"',
    "dot": ' stroke-dasharray="1.5 3"',
    "dashdot": ' stroke-dasharray="6 3 1.5 3"',
    "none": "",
}
_SHAPES: dict[Symbol, str] = {
    "circle": '<circle cx="13" cy="7" r="3.4"/>',
    "square": '<rect x="9.8" y="3.8" width="6.4" height="6.4"/>',
    "diamond": '<path d="M13 2.6 17.4 7 13 11.4 8.6 7z"/>',
    "triangle": '<path d="M13 2.8 17.2 10.4H8.8z"/>',
    "cross": '<path d="M10 4 16 10M16 4 10 10" stroke-width="2"/>',
    "star": '<path d="M13 .8 14.6 5h4.5l-3.6 2.8 1.3 4.5L13 9.6l-3.8 2.7 1.3-4.5L6.9 5h4.5z"/>',
    "none": "",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend.

    Attributes:
        name: Of the series.
        swatch: A small picture of how it is drawn.
    """

    name: str
    swatch: Markup


def legend(figure: Figure) -> tuple[Key, ...]:
    """One entry a name, in the order drawn; none when there is nothing to tell apart.

    A name drawn in several colours (a star for every width) gets a swatch in ink.
    """
    drawn: dict[str, Series | Bars] = {}
    colours: dict[str, set[str]] = {}
    for panel in figure.panels:
        for item in (*panel.bars, *panel.series):
            if isinstance(item, Bars) or item.legend:
                drawn.setdefault(item.name, item)
                colours.setdefault(item.name, set()).add(item.colour)
    keys = tuple(
        Key(name, _swatch(item, item.colour if len(colours[name]) == 1 else "ink"))
        for name, item in drawn.items()
    )
    return keys if len(keys) > 1 else ()


def _swatch(item: Series | Bars, colour: str) -> Markup:
    paint = f"var(--{colour})"
    if isinstance(item, Bars):
        inside = f'<rect x="3" y="2" width="20" height="10" fill="{paint}"/>' + _hatching(item)
    else:
        inside = ""
        if item.dash != "none":
            inside += f'<path d="M1 7H25" stroke-width="2"{_DASHES[item.dash]}/>'
        fill = paint if item.filled else "var(--paper)"
        inside = f'<g stroke="{paint}" fill="{fill}">{inside}{_SHAPES[item.symbol]}</g>'
    # every part is a constant of this file or a role of the palette
    return Markup(f'<svg viewBox="0 0 26 14" aria-hidden="true">{inside}</svg>')


def _hatching(bars: Bars) -> str:
    lines = {
        "": "",
        "/": "M5 12 12 2M11 12 18 2M17 12 22 4",
        "x": "M5 12 12 2M12 12 19 2M5 2 12 12M12 2 19 12",
        ".": "M7 5h1M12 5h1M17 5h1M7 9h1M12 9h1M17 9h1",
    }[bars.pattern]
    return f'<path d="{lines}" stroke="var(--paper)" fill="none"/>' if lines else ""
