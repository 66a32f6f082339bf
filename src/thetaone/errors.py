"""One tree of errors; each also derives from the builtin a caller would expect.

ThetaOneError
├── InputError (ValueError)             a value from the user is out of its range
├── TaskError (TypeError)               a task lacks a part or a part returns the wrong thing
├── MissingExtraError (ImportError)     an optional dependency is not installed
├── RecordError (ValueError)            a file is not a record, or a record of another version
├── PrescriptionError (ValueError)      no learning rate or init can be prescribed for a parameter
│   ├── RoleError                       a parameter's role cannot be decided
│   ├── UnknownOptimizerError           no update family is registered for an optimizer
│   └── MismatchError                   base, target or prescription are of different models
├── BudgetTooSmallError (ValueError)    no schedule fits the budget; names the floor
├── ScheduleError (RuntimeError)        a schedule breaks its own limits or is not this chain's
├── ProfileError (RuntimeError)         a model cannot be profiled, or a profile is stale
├── RecomputationError (RuntimeError)   a recomputed stage differs from its first execution
├── DiskTierError (OSError)             the disk tier cannot keep its promise
├── EstimatorError (ValueError)         an estimator does not apply, or cannot be trusted here
├── StorageError (RuntimeError)         a sweep's storage cannot be read or written
├── CheckpointError (OSError)           a checkpoint cannot be used or written
└── ReportError (OSError)               a report cannot be written

and one warning: EstimatorWarning (UserWarning), a gradient that is probably wrong.

Messages say the value, the limit, where, and what to do next.
"""

import contextlib
import sysconfig
import traceback
from collections.abc import Generator
from pathlib import Path

_OURS = Path(__file__).parent
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_TRANSPARENT = {"__torch_function__", "__torch_dispatch__"}  # modes hand on what the user called


class ThetaOneError(Exception):
    """Root of everything this library raises on purpose."""


class InputError(ThetaOneError, ValueError):
    """A value from the user is out of its range."""


class TaskError(ThetaOneError, TypeError):
    """A task lacks ``model``, ``batches`` or ``loss``, or one of them returns the wrong thing."""


class MissingExtraError(ThetaOneError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: The import that failed.
        extra: The extra of thetaone that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: {install_command(extra)}")


class Interrupted(BaseException):
    """The user or the system asked the command to end; no ``Exception``: nothing may keep it."""


STOPS = (KeyboardInterrupt, Interrupted)  # what no part of a task is blamed for


def first_line(error: BaseException) -> str:
    """What an error says, in a line; the words of a user's own class may themselves raise.

    Examples:
        >>> first_line(ValueError("no room")), first_line(ValueError())
        ('no room', 'no message')
    """
    try:
        words = str(error).strip()
    except Exception:
        words = ""
    return (words or "no message").splitlines()[0]


@contextlib.contextmanager
def blamed_on_task(part: str) -> Generator[None]:
    """Turn what a user's function raises into ``TaskError`` that names the function and the line.

    Raises:
        TaskError: Anything but this library's own errors was raised inside.
    """
    try:
        yield
    except (ThetaOneError, *STOPS):
        raise
    except BaseException as error:
        what = f"{type(error).__name__}: {first_line(error)}{_line(error)}"
        raise TaskError(f"{part} raised {what}") from error


def _line(error: BaseException) -> str:
    """Where it was raised: the user's innermost line, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    place = raised_by_user(error) or (frames and f"{frames[-1].filename}:{frames[-1].lineno}")
    return f" ({place})" if place else ""


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


def install_command(extra: str) -> str:
    """The command that brings an extra here: from the clone that this runs from, or an index."""
    clone = Path(__file__).resolve().parents[2]
    if not (clone / "pyproject.toml").is_file():
        return f"pip install 'thetaone[{extra}]'"
    where = "." if Path.cwd() == clone else str(clone)
    return f"pip install '{where}[{extra}]'"


class RecordError(ThetaOneError, ValueError):
    """A file or text is not a record, or a record of another kind or version."""


class PrescriptionError(ThetaOneError, ValueError):
    """No learning rate or initialization can be prescribed for a parameter."""


class RoleError(PrescriptionError):
    """A parameter's role cannot be decided from its shapes."""


class UnknownOptimizerError(PrescriptionError):
    """No update family is registered for an optimizer."""


class MismatchError(PrescriptionError):
    """Base, target or prescription belong to different models."""


class BudgetTooSmallError(ThetaOneError, ValueError):
    """No schedule fits the budget.

    Args:
        budget_bytes: What was asked for [bytes].
        floor_bytes: The cheapest peak that any schedule of the class reaches [bytes].
        where: The stage at which that peak is reached.
        option: Name of the argument that sets the budget.
        asked: The budget as it was written, ``"1KiB"``; in bytes when empty.
        enough: The floor as it would be written there; in bytes or MiB when empty.
    """

    def __init__(
        self,
        *,
        budget_bytes: int,
        floor_bytes: int,
        where: str,
        option: str = "budget",
        asked: str = "",
        enough: str = "",
    ) -> None:
        self.budget_bytes = budget_bytes
        self.floor_bytes = floor_bytes
        self.where = where
        self._option = option
        self.enough = enough or _written(floor_bytes)
        super().__init__(
            f"no schedule fits {option}={asked or _written(budget_bytes)}: the cheapest possible "
            f"peak is {self.enough} ({floor_bytes:,} bytes), reached at {where!r}. Pass "
            f"{option}={self.enough!r} (--{option} {self.enough}) or more, or shrink the batch."
        )

    def as_asked(self, asked: str, enough: str) -> "BudgetTooSmallError":
        """The same in the words of whoever asked: the budget as written, the floor in its unit."""
        return type(self)(
            budget_bytes=self.budget_bytes, floor_bytes=self.floor_bytes, where=self.where,
            option=self._option, asked=asked, enough=enough,
        )  # fmt: skip


def _written(size: int) -> str:
    """Bytes as one writes a budget: in bytes, or in MiB rounded up."""
    if size < 2**20:
        return f"{size}B"
    return f"{-(-size * 100 // 2**20) / 100:.2f}MiB"


class ScheduleError(ThetaOneError, RuntimeError):
    """A schedule breaks its own limits, or belongs to another chain."""


class ProfileError(ThetaOneError, RuntimeError):
    """A model cannot be profiled, or a stored profile is stale."""


class RecomputationError(ThetaOneError, RuntimeError):
    """A recomputed stage does not do what its first execution did."""


class DiskTierError(ThetaOneError, OSError):
    """The disk tier cannot write, or cannot read back what it wrote."""


class EstimatorError(ThetaOneError, ValueError):
    """An estimator does not apply to this expectation, or cannot be trusted on it."""


class EstimatorWarning(UserWarning):
    """A gradient estimate is probably wrong: samples and log p do not belong together."""


class StorageError(ThetaOneError, RuntimeError):
    """A sweep's storage cannot be read or written."""


class CheckpointError(ThetaOneError, OSError):
    """A checkpoint cannot be read or written, or belongs to another recipe."""


class ReportError(ThetaOneError, OSError):
    """A report cannot be written."""
