"""Whose fault an unexpected error is: the line of the user's code that raised it, if one did."""

import sysconfig
import traceback
from pathlib import Path

_OURS = Path(__file__).parents[1]
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_TRANSPARENT = {"__torch_function__", "__torch_dispatch__"}  # modes hand on what the user called


def raised_by_user(error: BaseException) -> str:
    """The place in the user's code where an error was raised, or what it called raised it.

    Args:
        error: With its traceback.

    Returns:
        ``my_task.py:12, in loss``; empty where this package's code was called after the user's.
    """
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.name in _TRANSPARENT:
            continue
        if Path(frame.filename).is_relative_to(_OURS):
            place = ""
        elif Path(frame.filename).is_file() and not frame.filename.startswith(_LIBRARIES):
            place = f"{_shown(Path(frame.filename))}:{frame.lineno}, in {frame.name}"
    return place


def _shown(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
