"""Puts a report on disk: ``index.html`` and ``result.json``, each whole or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import get_args

from thetaone.errors import RecordError, ReportError
from thetaone.records import local_path
from thetaone.report.page._html import render
from thetaone.report.page._pages import Result


def ensure_writable(directory: str | Path) -> Path:
    """Make sure that a report can be written, before anything is computed for it.

    Nothing is left behind: a command that fails later leaves no empty folder.

    Args:
        directory: Where the report will go.

    Returns:
        The directory, which is there if it was there before.

    Raises:
        ReportError: It cannot be made or written to; says why and what to do.
    """
    folder = local_path(directory)
    try:
        absent = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in absent:
            path.rmdir()
    except OSError as error:
        raise ReportError(
            f"cannot write a report to {str(folder)!r}: {error.strerror or error}. "
            "Pass a directory that you may write to, e.g. report='out/'"
        ) from error
    return folder


def load_result(path: str | Path) -> Result:
    """Read a result of any kind that has a page.

    Args:
        path: What ``--output`` wrote, or a report's ``result.json``.

    Raises:
        RecordError: It cannot be read, or is none of the kinds that have a page.
    """
    try:
        stored: object = json.loads(local_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"cannot read a result from {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise RecordError(f"{path} is not JSON: {error}") from error
    kinds = {kind.__name__: kind for kind in get_args(Result)}
    name = stored.get("record") if isinstance(stored, dict) else None  # pyright: ignore
    if name not in kinds:
        raise RecordError(
            f"{path} is not a result that has a page: record {name!r}; these have one: "
            f"{', '.join(kinds)}"
        )
    return kinds[name].from_json(path)


def write_report(result: Result, directory: str | Path, *, interactive: bool = False) -> Path:
    """Write ``index.html`` and ``result.json`` of a result.

    The result comes first: whatever happens to the page, what was computed is kept.

    Args:
        result: Whatever ``describe`` takes.
        directory: Where they go; made when it does not exist.
        interactive: Draw with plotly.js, which makes the page 5 MB larger.

    Returns:
        Path of ``index.html``.

    Raises:
        ReportError: The directory cannot be written to.
    """
    folder = ensure_writable(directory)
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / "result.json", result.to_json() + "\n")
    page = folder / "index.html"
    _write_whole(page, render(result, interactive=interactive))
    return page


def _write_whole(path: Path, text: str) -> None:
    """Write beside the file, then rename: a reader sees the old file or the new, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)  # mkstemp gives 0600; a report is to be shown
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ReportError(
            f"cannot write {str(path)!r}: {error.strerror or error}. "
            "Free some space or pass another directory"
        ) from error
