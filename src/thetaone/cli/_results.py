"""Where a result goes, the same for every command: the terminal, a file, a page, a picture."""

import json
import os.path
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Protocol

import typer

from thetaone.errors import InputError, MissingExtraError
from thetaone.records import local_path


def in_folder(path: Path, name: str) -> Path:
    """The file that is meant: a folder stands for the one of that name in it."""
    path = local_path(path)
    # os.path's answer to a name too long for a file is no, Path's is an OSError; who reads the
    # file says what is wrong with it
    return path / name if os.path.isdir(path) else path  # noqa: PTH112


def require_writable(path: Path | None, example: str = "result.json") -> Path | None:
    """The path of an output, refused before the work when it cannot be written.

    Raises:
        InputError: It is a folder, lies in one that does not exist, or may not be written.
    """
    if path is None:
        return None
    path = local_path(path)
    try:
        folder = path.resolve().parent
        is_folder, exists, has_folder = path.is_dir(), path.exists(), folder.is_dir()
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte in it
        raise InputError(f"{str(path)[:40]!r}…: no name of a file: {error}") from error
    if is_folder:
        raise InputError(f"{path} is a folder: name a file in it, e.g. {path / example}")
    if not has_folder:
        raise InputError(f"{path}: its folder does not exist; create it first")
    try:
        path.open("ab").close()
    except OSError as error:
        raise InputError(f"{path} may not be written: {error}; name another file") from error
    if not exists:
        path.unlink()
    return path


def _require_own(path: Path | None) -> Path | None:
    """A result's file: absent, empty, or an earlier result; nothing else is written over.

    Raises:
        InputError: It cannot be written, or holds something else, such as the task or a journal.
    """
    path = require_writable(path)
    if path is None or not path.is_file():
        return path
    try:
        held = path.read_bytes()
        result = not held.strip() or "record" in json.loads(held)
    except (OSError, ValueError, TypeError, RecursionError):
        result = False
    if not result:
        raise InputError(f"{path} holds something that is no result: name another file")
    return path


def require_apart(output: Path | None, storage: str) -> None:
    """Refuse a result's file that is the journal of its sweep.

    Raises:
        InputError: The two are one file.
    """
    if output is not None and output.resolve() == local_path(storage).resolve():
        raise InputError(f"--output and --storage are both {output}: name another file")


def _require_plotting(path: Path | None) -> Path | None:
    """A picture's file, refused before the work when it cannot be written or drawn."""
    if path is not None and find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot")
    return require_writable(path)


def _require_folder(path: Path | None) -> Path | None:
    """A report's folder, refused before the work when it cannot be written."""
    if path is not None:
        from thetaone.report import ensure_writable

        return ensure_writable(path)
    return None


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also write the result as JSON here.", callback=_require_own),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for what is made: the page, result.json, the weights.",
        callback=_require_folder,
    ),
]  # fmt: skip
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw the result here.", callback=_require_plotting),
]


class Shown(Protocol):
    """A result as this module uses it: a record, printed by ``str``."""

    def to_json(self, path: str | Path | None = None) -> str:
        """The record as JSON text; also written to ``path``."""
        ...


def show(record: Shown, *, as_json: bool, output: Path | None) -> None:
    """Print a result, and write it where ``--output`` says."""
    print(record.to_json() if as_json else record)
    if output is None:
        return
    try:
        record.to_json(output)
    except OSError as error:  # the disk filled meanwhile
        raise InputError(f"--output={output}: cannot be written: {error}") from error


def draw_plot(record: object, path: Path | None) -> None:
    """Draw a result with matplotlib where ``--plot`` says."""
    if path is None:
        return
    try:
        record.plot().savefig(path)  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, ValueError) as error:  # a format that matplotlib does not know
        raise InputError(f"--plot={path}: cannot be written: {error}") from error


def draw_page(record: object, folder: Path | None, *, quiet: bool = False) -> None:
    """Write a result's page into the folder of ``--report``, and say where."""
    if folder is None:
        return
    from thetaone.report import write_report

    page = write_report(record, folder)  # pyright: ignore[reportArgumentType]
    if not quiet:
        print(f"report: {page}")
