"""What a figure is before anyone draws it: panels, axes, series and marks, in plain numbers.

The renderers read these and decide nothing that a reader could take for data: each range, tick,
label and order is settled here. Colours are names of roles (``mup``, ``sp``, ``w3``), resolved by
``palette``; nothing is told apart by colour alone, so each series also has a symbol, a dash or a
pattern.
"""

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["number", "rate", "bytes", "seconds", "count", "category", "exponent"]
Symbol = Literal["circle", "square", "diamond", "triangle", "cross", "star", "none"]
Dash = Literal["solid", "dash", "dot", "dashdot", "none"]
Pattern = Literal["", "/", "x", "."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: What is measured, with its unit.
        quantity: How its values are written.
        log: Whether it is logarithmic.
        range: Lowest and highest value shown [unit of the axis].
        ticks: Position and text of each tick.
    """

    label: str
    range: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]
    quantity: Quantity = "number"
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that belong together, joined by a line or not.

    Attributes:
        name: In the legend and in the table; series of one name share one legend entry.
        x: Positions.
        y: Values; same length.
        low: Lower end of each value's interval; empty when it has none.
        high: Upper end; empty when it has none.
        horizontal: The intervals lie along x.
        spread: The intervals are drawn as bars or as a band.
        colour: Role of its colour.
        symbol: Shape of its points; ``none`` draws no points.
        filled: Whether the points are filled.
        dash: Line style; ``none`` draws no line.
        width: Line width [points].
        steps: The value holds until the next x.
        area: The area down to the axis is filled.
        notes: One text a point, in the table and on hover; empty when there is nothing to add.
        tabulate: Whether the table beside the figure lists its points.
        legend: Whether the legend lists it.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    horizontal: bool = False
    spread: Literal["bars", "band"] = "bars"
    colour: str = "ink"
    symbol: Symbol = "circle"
    filled: bool = True
    dash: Dash = "solid"
    width: float = 1.6
    steps: bool = False
    area: bool = False
    notes: tuple[str, ...] = ()
    tabulate: bool = True
    legend: bool = True

    def __post_init__(self) -> None:
        for what in (self.y, self.low or self.x, self.high or self.x, self.notes or self.x):
            if len(what) != len(self.x):
                raise ValueError(f"series {self.name!r}: {len(what)} values for {len(self.x)} x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Horizontal bars: an interval of x in the row y.

    Attributes:
        name: In the legend and in the table.
        left: Left end of each bar.
        right: Right end of each bar.
        y: Row of each bar.
        thickness: Height of a bar [rows].
        colour: Role of its colour.
        pattern: Hatching, so that kinds differ without colour.
        tabulate: Whether the table beside the figure lists them.
    """

    name: str
    left: tuple[float, ...]
    right: tuple[float, ...]
    y: tuple[float, ...]
    thickness: float = 0.8
    colour: str = "ink"
    pattern: Pattern = ""
    tabulate: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A line across the panel at one value, or the strip between two.

    Attributes:
        axis: The axis on which the value lies.
        value: Where.
        upper: Other edge of a strip; ``None`` for a line.
        label: Written beside it; empty for none.
        colour: Role of its colour.
        dash: Line style.
    """

    axis: Literal["x", "y"]
    value: float
    upper: float | None = None
    label: str = ""
    colour: str = "muted"
    dash: Dash = "dash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Words at a place of the panel.

    Attributes:
        x: Where.
        y: Where.
        text: The words.
        align: The side of the place on which they stand.
        colour: Role of their colour.
    """

    x: float
    y: float
    text: str
    align: Literal["above", "below", "left", "right"] = "above"
    colour: str = "ink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes with what is drawn in it.

    Attributes:
        title: Above the panel.
        x: Horizontal axis.
        y: Vertical axis.
        series: Drawn in this order.
        bars: Drawn below the series.
        references: Lines and strips, drawn below everything.
        labels: Words, drawn on top.
        height: Of the panel on a page [pixels].
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    bars: tuple[Bars, ...] = ()
    references: tuple[Reference, ...] = ()
    labels: tuple[Label, ...] = ()
    height: int = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels side by side, with what a reader who cannot see them needs.

    Attributes:
        key: Short name, unique in a report; also its anchor.
        title: One line.
        alt: What the picture shows, in words, with the numbers.
        panels: Left to right.
    """

    key: str
    title: str
    alt: str
    panels: tuple[Panel, ...]
