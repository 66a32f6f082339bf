"""Figure data to matplotlib, for papers and notebooks; needs the extra ``plot``."""

import math
from typing import Any

from thetaone.errors import MissingExtraError
from thetaone.report.drawing._figure import Bars, Figure, Label, Panel, Reference, Series
from thetaone.report.drawing._palette import THEMES

_SYMBOLS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle": "^",
    "cross": "x",
    "star": "*",
    "none": "",
}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "none": ""}
_HATCHES = {"": "", "/": "///", "x": "xx", ".": ".."}


def draw(
    figure: Figure, *, theme: str = "light", figsize: tuple[float, float] | None = None
) -> Any:
    """The figure with matplotlib, one axes a panel, one legend below.

    Args:
        figure: What to draw.
        theme: ``light`` or ``dark``.
        figsize: Width and height [inches]; from the panels when None.

    Returns:
        A ``matplotlib.figure.Figure``, known to pyplot, so that ``plt.show()`` shows it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    colours = THEMES[theme]
    count = len(figure.panels)
    tallest = max(panel.height for panel in figure.panels)
    size = figsize or (max(5.6, 4.6 * count), tallest / 90 + 0.5)
    with plt.rc_context(_style(colours)):  # pyright: ignore[reportArgumentType]
        drawn, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
        for index, (panel, ax) in enumerate(zip(figure.panels, axes[0], strict=True)):
            _draw_panel(ax, panel, colours)
            if index and panel.y == figure.panels[index - 1].y:
                ax.set_ylabel("")  # one shared axis
        drawn.suptitle(figure.title, fontsize=11)
        _legend(drawn, axes[0], figure)
    return drawn


def _style(colours: dict[str, str]) -> dict[str, Any]:
    ink, paper, muted = colours["ink"], colours["paper"], colours["muted"]
    return {
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": muted,
        "axes.titlecolor": ink,
        "xtick.color": muted,
        "ytick.color": muted,
        "grid.color": colours["grid"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "font.size": 9,
        "hatch.linewidth": 0.6,
        "hatch.color": paper,
        "legend.frameon": False,
        "svg.fonttype": "none",
    }


def _draw_panel(ax: Any, panel: Panel, colours: dict[str, str]) -> None:
    for axis, name in ((panel.x, "x"), (panel.y, "y")):
        if axis.log:
            getattr(ax, f"set_{name}scale")("log", base=2)
        getattr(ax, f"set_{name}lim")(*axis.range)
        getattr(ax, f"set_{name}ticks")(
            [value for value, _ in axis.ticks], [text for _, text in axis.ticks]
        )
        getattr(ax, f"set_{name}label")(axis.label)
    ax.minorticks_off()
    ax.grid(axis="x" if panel.y.quantity == "category" else "both", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.set_title(panel.title, pad=14)
    for reference in panel.references:
        _draw_reference(ax, reference, colours)
    for bars in panel.bars:
        _draw_bars(ax, bars, colours)
    for series in panel.series:
        _draw_series(ax, series, colours)
    for label in panel.labels:
        _draw_label(ax, label, colours)


def _draw_series(ax: Any, series: Series, colours: dict[str, str]) -> None:
    colour = colours[series.colour]
    y = [value if math.isfinite(value) else math.nan for value in series.y]
    style: dict[str, Any] = {
        "color": colour,
        "linestyle": _DASHES[series.dash],
        "linewidth": series.width,
        "marker": _SYMBOLS[series.symbol],
        "markersize": 10 if series.symbol == "star" else 5,
        "markerfacecolor": colour if series.filled else "none",
        "label": series.name if series.legend else "_",
        "drawstyle": "steps-post" if series.steps else "default",
    }
    if series.symbol == "star":
        style |= {"markeredgecolor": colours["paper"], "markeredgewidth": 0.6, "zorder": 4}
    if series.area:
        ax.fill_between(
            series.x, y, step="post" if series.steps else None, color=colour, alpha=0.18
        )
    if not series.low:
        ax.plot(series.x, y, **style)
        return
    if series.spread == "band":
        ax.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(series.x, y, **style)
        return
    centre = series.x if series.horizontal else y
    errors = [
        [c - low for low, c in zip(series.low, centre, strict=True)],
        [high - c for high, c in zip(series.high, centre, strict=True)],
    ]
    along = {"xerr": errors} if series.horizontal else {"yerr": errors}
    ax.errorbar(series.x, y, **along, **style, elinewidth=1.0, capsize=2)


def _draw_bars(ax: Any, bars: Bars, colours: dict[str, str]) -> None:
    lengths = [right - left for left, right in zip(bars.left, bars.right, strict=True)]
    ax.barh(
        bars.y,
        lengths,
        left=bars.left,
        height=bars.thickness,
        color=colours[bars.colour],
        hatch=_HATCHES[bars.pattern],
        edgecolor=colours["paper"],
        linewidth=0.4,
        label=bars.name,
    )


def _draw_reference(ax: Any, reference: Reference, colours: dict[str, str]) -> None:
    colour = colours[reference.colour]
    vertical = reference.axis == "x"
    if reference.upper is not None:
        span = ax.axvspan if vertical else ax.axhspan
        span(reference.value, reference.upper, color=colour, linewidth=0, zorder=0)
    else:
        line = ax.axvline if vertical else ax.axhline
        line(reference.value, color=colour, linestyle=_DASHES[reference.dash], linewidth=1.1)
    if not reference.label:
        return
    words = colours["muted"] if reference.upper is not None else colour
    edge = reference.value if reference.upper is None else reference.upper
    below = reference.upper is not None
    if vertical:  # above the frame, where no data are
        place, frame, shift, sides = (reference.value, 1.0), "x", (0, 2), ("center", "bottom")
    else:
        place, frame, shift = (0.99, edge), "y", (0, -2 if below else 2)
        sides = ("right", "top" if below else "bottom")
    ax.annotate(
        reference.label,
        place,
        xycoords=("data", "axes fraction") if frame == "x" else ("axes fraction", "data"),
        xytext=shift,
        textcoords="offset points",
        ha=sides[0],
        va=sides[1],
        fontsize=8,
        color=words,
    )


def _draw_label(ax: Any, label: Label, colours: dict[str, str]) -> None:
    offsets = {"above": (0, 6), "below": (0, -6), "left": (-6, 0), "right": (6, 0)}
    ax.annotate(
        label.text,
        (label.x, label.y),
        xytext=offsets[label.align],
        textcoords="offset points",
        ha={"left": "right", "right": "left"}.get(label.align, "center"),
        va={"above": "bottom", "below": "top"}.get(label.align, "center"),
        color=colours[label.colour],
        fontsize=8,
    )


def _legend(drawn: Any, axes: Any, figure: Figure) -> None:
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    order = [item.name for panel in figure.panels for item in (*panel.bars, *panel.series)]
    names = sorted(entries, key=order.index)  # matplotlib puts error bars last
    if len(entries) > 1:
        drawn.legend(
            [entries[name] for name in names],
            names,
            loc="outside lower center",
            ncols=min(len(entries), 6),
            fontsize=8,
        )
