"""Loads a user's file, and the files beside it, from the bytes that are hashed.

Python tells versions of a file apart by second and size, so an edit within a second runs the old
bytecode. Here source is read, hashed and compiled, each time; no bytecode is read or written.
"""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from thetaone.errors import STOPS, TaskError, ThetaOneError, first_line
from thetaone.records import did_you_mean


class SourceFile(importlib.machinery.SourceFileLoader):
    """Compiles a file from its bytes; ``digest`` says which.

    Attributes:
        digest: SHA-256 of the bytes compiled last; empty before.
    """

    digest = ""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        source = Path(self.path).read_bytes()
        self.digest = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, self.path)


class _Neighbours(importlib.abc.MetaPathFinder):
    """Finds modules and packages that lie beside the task file loaded last."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a neighbour; None for any other name."""
        root = fullname.partition(".")[0]
        if self.folder is None or root in sys.stdlib_module_names or root == "thetaone":
            return None
        place = self.folder.joinpath(*fullname.split("."))
        for file, is_package in ((place / "__init__.py", True), (place.with_suffix(".py"), False)):
            if file.is_file():
                return importlib.util.spec_from_file_location(
                    fullname, file, loader=SourceFile(fullname, str(file)),
                    submodule_search_locations=[str(place)] if is_package else None,
                )  # fmt: skip
        return None


_neighbours = _Neighbours()


def load_file(path: Path) -> ModuleType:
    """Execute a file and what it imports from beside itself, as they are now.

    Raises:
        TaskError: There is no such file, or it raises; says what and where.
    """
    if not path.is_file() or path.suffix != ".py":
        meant = did_you_mean(path.name, [file.name for file in path.parent.glob("*.py")])
        raise TaskError(f"no task at {path}: give the path of an existing .py file{meant}")
    name = f"_thetaone_task_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFile(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _forget_neighbours()
    _neighbours.folder = path.parent
    if _neighbours not in sys.meta_path:
        sys.meta_path.insert(0, _neighbours)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except (ThetaOneError, *STOPS):
        del sys.modules[name]
        raise
    except BaseException as error:  # the user's file may raise anything
        del sys.modules[name]
        raise TaskError(f"cannot load the task at {path}: {_told(error, path)}") from error
    return module


def _forget_neighbours() -> None:
    """Drop what lay beside an earlier task, so that it is read anew."""
    for name, module in list(sys.modules.items()):
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        if isinstance(loader, SourceFile) and not name.startswith("_thetaone_task_"):
            del sys.modules[name]


def _told(error: BaseException, path: Path) -> str:
    """The error in a line, with the line of the file where it was raised."""
    first = first_line(error)
    if isinstance(error, SyntaxError):
        return first
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{type(error).__name__}: {first}" + (f" (line {line})" if line else "")
