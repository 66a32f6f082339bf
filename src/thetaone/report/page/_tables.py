"""The table beside each figure: the same numbers for who cannot or will not look at a picture."""

from thetaone.report.drawing import Axis, Bars, Figure, Panel, Series, format_value
from thetaone.report.page._contents import Table

MOST_ROWS = 400  # of a table beside a figure: what nobody reads makes a page large


def figure_table(figure: Figure) -> Table:
    """Every tabulated point of a figure, in reading order.

    Args:
        figure: Any figure.

    Returns:
        Panel, series, position, value, interval and note, without the columns that stay empty.
    """
    rows = [row for panel in figure.panels for row in _panel_rows(panel)]
    left_out = len(rows) - MOST_ROWS
    rows = rows[:MOST_ROWS]
    columns = ("panel", "series", _label(figure, "x"), _label(figure, "y"), "interval", "note")
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    return Table(
        caption=f"Data: {figure.title}",
        columns=tuple(columns[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in rows),
        numeric=tuple(2 <= index <= 4 for index in kept),
        style="",
        note=f"and {left_out:,} more, which are in result.json" if left_out > 0 else "",
    )


def _panel_rows(panel: Panel) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for bars in panel.bars:
        rows += _bar_rows(bars, panel)
    for series in panel.series:
        if series.tabulate:
            rows += _series_rows(series, panel)
    return rows


def _series_rows(series: Series, panel: Panel) -> list[tuple[str, ...]]:
    spread = panel.x.quantity if series.horizontal else panel.y.quantity
    notes = series.notes or ("",) * len(series.x)
    rows: list[tuple[str, ...]] = []
    for index, (x, y, note) in enumerate(zip(series.x, series.y, notes, strict=True)):
        interval = ""
        if series.low:
            low, high = series.low[index], series.high[index]
            interval = f"{format_value(low, spread)} … {format_value(high, spread)}"
        row = _row_name(y, panel.y) if panel.y.quantity == "category" else None
        value = format_value(y, panel.y.quantity) if row is None else row
        rows.append(
            (panel.title, series.name, format_value(x, panel.x.quantity), value, interval, note)
        )
    return rows


def _bar_rows(bars: Bars, panel: Panel) -> list[tuple[str, ...]]:
    if not bars.tabulate:
        return []
    quantity = panel.x.quantity
    return [
        (
            panel.title,
            bars.name,
            format_value(right - left, quantity),
            _row_name(y, panel.y),
            f"{format_value(left, quantity)} … {format_value(right, quantity)}",
            "",
        )
        for left, right, y in zip(bars.left, bars.right, bars.y, strict=True)
    ]


def _row_name(y: float, axis: Axis) -> str:
    nearest = min(axis.ticks, key=lambda tick: abs(tick[0] - y), default=(0.0, ""))
    return nearest[1]


def _label(figure: Figure, which: str) -> str:
    labels = {getattr(panel, which).label for panel in figure.panels} - {""}
    return " / ".join(sorted(labels)) or "row"
