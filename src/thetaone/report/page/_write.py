"""Puts a report on disk: ``index.html`` and ``result.json``, each whole or not at all."""

import os
import tempfile
from pathlib import Path

from thetaone.errors import ReportError
from thetaone.records import EstimatorBakeoff, TransferResult
from thetaone.report.page._html import render


def ensure_writable(directory: str | Path) -> Path:
    """Make sure that a report can be written, before anything is computed for it.

    Args:
        directory: Where the report goes; made when it does not exist.

    Returns:
        The directory.

    Raises:
        ReportError: It cannot be made or written to; says why and what to do.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReportError(
            f"cannot write a report to {str(folder)!r}: {error.strerror or error}. "
            "Pass a directory that you may write to, e.g. report='out/'"
        ) from error
    return folder


def write_report(result: TransferResult | EstimatorBakeoff, directory: str | Path) -> Path:
    """Write ``index.html`` and ``result.json`` of a result.

    The result comes first: whatever happens to the page, what was computed is kept.

    Args:
        result: What a transfer, or a bake-off of gradient estimators, found.
        directory: Where they go; made when it does not exist.

    Returns:
        Path of ``index.html``.

    Raises:
        ReportError: The directory cannot be written to.
    """
    folder = ensure_writable(directory)
    _write_whole(folder / "result.json", result.to_json() + "\n")
    page = folder / "index.html"
    _write_whole(page, render(result))
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
