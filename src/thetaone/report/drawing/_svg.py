"""Figure data to SVG that fits any width, in any theme, without a script.

A picture that is scaled has tiny words on a phone and huge ones on a wide screen. Here marks are
placed in percent of the plot's width and height, lines are stretched with a stroke that is not,
and words keep their size. Colours are the page's own variables (``var(--mup)``), so that a picture
turns dark with the page; no attribute is a style, so that a strict policy lets it stand.
"""

import textwrap

from markupsafe import Markup, escape

from thetaone.report.drawing._figure import Axis, Panel
from thetaone.report.drawing._marks import bars_marks, label_mark, reference_marks, series_marks
from thetaone.report.drawing._places import fitting, percent_of, share, text_width

WIDE, NARROW = 430.0, 250.0  # of the plot in a column of a wide page, and on a phone [pixels]
LONGEST_NAME, SHORT_NAME = 46, 20  # letters of a line of a row's name, wide and narrow
LINE = 14  # height of a line of words [pixels]
SYMBOLS = Markup(
    '<svg class="defs" aria-hidden="true"><defs>'
    '<circle id="circle" r="3.6"/><path id="square" d="M-3.3-3.3h6.6v6.6h-6.6z"/>'
    '<path id="diamond" d="M0-4.6 4.6 0 0 4.6-4.6 0z"/>'
    '<path id="triangle" d="M0-4.4 4.4 3.4H-4.4z"/>'
    '<path id="cross" d="M-3.4-3.4 3.4 3.4M-3.4 3.4 3.4-3.4"/>'
    '<path id="star" d="M0-7.4 1.9-2.4 7.1-2.3 3 .9 4.4 6-.1 3-4.5 6-3 .9-7.1-2.3-1.8-2.4z"/>'
    '<pattern id="hatch-slash" patternUnits="userSpaceOnUse" width="6" height="6">'
    '<path d="M-1 7 7-1M2 10 10 2M-4 4 4-4"/></pattern>'
    '<pattern id="hatch-x" patternUnits="userSpaceOnUse" width="6" height="6">'
    '<path d="M0 0 6 6M0 6 6 0"/></pattern>'
    '<pattern id="hatch-dot" patternUnits="userSpaceOnUse" width="5" height="5">'
    '<path d="M2 2.5h1"/></pattern></defs></svg>'
)


def svg_panel(panel: Panel, key: str) -> Markup:
    """One panel: the names of its y axis, and the plot that takes the width left.

    Args:
        panel: What to draw.
        key: A name that no other panel of the page has; ids are made of it.

    Returns:
        Markup of two or three ``svg`` elements for a row that gives the last one what is left.
        ``SYMBOLS`` must stand once on the page.
    """
    parts = [
        *(mark for reference in panel.references for mark in reference_marks(reference, panel)),
        *_grid(panel),
        *(
            mark
            for index, bars in enumerate(panel.bars)
            for mark in bars_marks(bars, panel, f"{key}-bars-{index}")
        ),
        *(mark for series in panel.series for mark in series_marks(series, panel)),
        *(label_mark(label, panel) for label in panel.labels),
        *_x_labels(panel.x),
    ]
    height = panel.height - 66  # what the words above and below the plot take
    plot = f'<svg class="area" height="{height}">{"".join(parts)}</svg>'
    return Markup(_names(panel.y, height) + plot)  # texts were escaped where they were put in


def _grid(panel: Panel) -> list[str]:
    rows = panel.y.quantity == "category"
    lines = [
        f'<line class="grid" x1="{at}" x2="{at}" y2="100%"/>'
        for at in (percent_of(share(value, panel.x)) for value, _ in panel.x.ticks)
    ]
    if rows:
        return lines
    lines += [
        f'<line class="grid" y1="{at}" y2="{at}" x2="100%"/>'
        for at in (percent_of(1 - share(value, panel.y)) for value, _ in panel.y.ticks)
    ]
    return [*lines, '<line class="frame" y2="100%"/>',
            '<line class="frame" y1="100%" y2="100%" x2="100%"/>']  # fmt: skip


def _x_labels(axis: Axis) -> list[str]:
    wide, narrow = fitting(axis, WIDE), fitting(axis, NARROW)
    spare = ' class="spare"'
    texts = [
        f'<text x="{percent_of(share(value, axis))}" y="100%" dy="17"'
        f"{'' if value in narrow else spare}>{escape(text)}</text>"
        for value, text in axis.ticks
        if value in wide
    ]
    title = f'<text class="title" x="100%" y="100%" dy="36">{escape(axis.label)}</text>'
    return [f'<g class="ticks">{"".join(texts)}</g>', title]


def _names(axis: Axis, height: int) -> str:
    """The labels of the y axis: as they are, and shortened for a narrow page."""
    longest, short = LONGEST_NAME, SHORT_NAME
    if all(len(text) <= short for _, text in axis.ticks):
        return _column(axis, height, longest, "names")
    return _column(axis, height, longest, "names wide") + _column(
        axis, height, short, "names narrow"
    )


def _column(axis: Axis, height: int, most: int, kind: str) -> str:
    fit = max(1, int(height / max(1, len(axis.ticks)) / LINE))
    names = [(share(value, axis), _lines(text, most, fit)) for value, text in axis.ticks]
    width = round(max((text_width(line) for _, lines in names for line in lines), default=0.0)) + 9
    rows = "".join(
        f'<text x="{width - 7}" y="{percent_of(1 - place)}" '
        f'dy="{4 + LINE * (index - (len(lines) - 1) / 2):g}">{escape(line)}</text>'
        for place, lines in names
        for index, line in enumerate(lines)
    )
    return f'<svg class="{kind}" width="{width}" height="{height}">{rows}</svg>'


def _lines(text: str, most: int, n_lines: int) -> list[str]:
    """A row's name in lines that fit: words are broken; of a dotted name the end tells more.

    Examples:
        >>> _lines("blocks.3.mlp.up", 8, 2), _lines("wider is better", 8, 2)
        (['….mlp.up'], ['wider is', 'better'])
    """
    if len(text) <= most:
        return [text]
    if " " not in text:
        return ["…" + text[1 - most :]]
    return textwrap.wrap(text, most, max_lines=n_lines, placeholder=" …")
