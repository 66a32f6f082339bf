"""Paths on this machine as people write them."""

import os
from pathlib import Path

from thetaone.errors import InputError


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file or a folder; ``~`` is the home folder, as in a shell.

    A shell replaces ``~`` before a program sees it; in Python and in a TOML file nobody does, and a
    folder of that name would be made.

    Raises:
        InputError: ``~name`` of a user that is not here.

    Examples:
        >>> local_path("~/runs") == Path.home() / "runs"
        True
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{str(path)!r}: {error}; write the folder's whole name, or ./ before a name that "
            "begins with ~"
        ) from error
