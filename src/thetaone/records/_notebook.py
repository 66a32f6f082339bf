"""What a notebook shows of a record: the text that it prints, its tables and picture as HTML."""

import base64
import contextlib
import html
import importlib
import io
import re
from collections.abc import Generator, Sequence
from contextvars import ContextVar
from typing import Any

from thetaone.errors import MissingExtraError

_MARK = re.compile("\x00(\\d+)\x00")
_tables: ContextVar[list[str] | None] = ContextVar("_tables", default=None)


def place_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str | None:
    """A mark that stands for a table while a record prints itself for a notebook; else None.

    Args:
        columns: Headings.
        rows: Formatted cells.
        title: A line above the table.
    """
    tables = _tables.get()
    if tables is None:
        return None
    tables.append(_table(columns, rows, title))
    return f"\x00{len(tables) - 1}\x00"


def notebook_html(record: Any, *, picture: bool) -> str:
    """The text that a record prints, with every table as an HTML table, and its picture.

    Args:
        record: Anything whose ``__str__`` builds its tables by ``text_table``.
        picture: Whether ``record.plot()`` is drawn below.
    """
    with _placing() as tables:
        text = str(record)
    pieces = _MARK.split(text)  # text, number of a table, text, …
    parts = [
        tables[int(piece)] if index % 2 else _text(piece) for index, piece in enumerate(pieces)
    ]
    return "".join([*parts, _picture(record) if picture else ""])


@contextlib.contextmanager
def _placing() -> Generator[list[str]]:
    token = _tables.set(tables := [])
    try:
        yield tables
    finally:
        _tables.reset(token)


def _text(piece: str) -> str:
    return f"<pre>{html.escape(piece.strip(chr(10)))}</pre>" if piece.strip() else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    caption = f"<caption>{html.escape(title)}</caption>" if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _picture(record: Any) -> str:
    """The figure as an image; where matplotlib is missing, what to install."""
    try:
        figure = record.plot()
    except MissingExtraError as error:
        return f"<p>{html.escape(str(error))}</p>"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    importlib.import_module("matplotlib.pyplot").close(figure)  # else it is shown a second time
    return (
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )
