"""Plain-text tables for printed records: one look in every room."""

import random
from collections.abc import Iterable, Sequence

from thetaone.records._notebook import place_table

_before = random.getstate()
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

random.setstate(_before)  # rich draws from the global generator when it is imported


def text_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", width: int = 160
) -> str:
    """A table as plain text (no colour, no trailing blanks); numbers align right.

    Args:
        columns: Headings.
        rows: Cells of each row, already formatted; anything else is passed through ``str``.
        title: A line above the table.
        width: Longest line [characters]; longer cells wrap.

    Returns:
        The table, lines joined by newlines, without a final newline.

    Examples:
        >>> print(text_table(["law", "exponent"], [["µP", "0.01"], ["SP", "0.76"]]))
         law   exponent
        ────────────────
         µP        0.01
         SP        0.76
    """
    cells = [[str(cell) for cell in row] for row in rows]
    placed = place_table(columns, cells, title)
    if placed is not None:  # a notebook shows it
        return placed
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, show_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[index]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([title, *lines] if title else lines).rstrip()


def _is_number(text: str) -> bool:
    return text[:1] in "0123456789+-−.×–—" or text in {"", "nan", "inf"}
