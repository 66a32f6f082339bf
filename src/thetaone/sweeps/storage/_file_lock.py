"""A lock between processes and machines: a file that only one of them can create.

The name is that of Optuna's own lock, so its dashboard and samplers wait for us and we for them.
Not Optuna's class: interrupted while it waits, that one releases the lock of another process.
"""

import contextlib
import os
import time
import uuid
from pathlib import Path
from types import TracebackType

from thetaone.sweeps.storage._owner import is_gone, this_process

GRACE_SECONDS = 10.0  # a lock is held for milliseconds: an older one is of a killed process
_LONGEST_PAUSE = 0.1


class FileLock:
    """Held inside ``with``; a lock of a process that is gone is broken.

    Args:
        path: What is locked; the lock is ``path`` + ``.lock``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")

    def __enter__(self) -> None:
        pause, watched, since = 0.001, None, time.monotonic()
        while True:
            with contextlib.suppress(FileExistsError):
                handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                os.write(handle, this_process().encode())
                os.close(handle)
                return
            seen = self._look()
            if seen != watched:
                watched, since = seen, time.monotonic()
            if seen is not None and self._is_stale(seen[1], since):
                self._remove()
                continue
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._remove()

    def _look(self) -> tuple[float, str] | None:
        """When the lock was made, and whose it is; None when it is free."""
        try:
            since = os.lstat(self._path).st_mtime
            owner = "" if self._path.is_symlink() else self._path.read_text(encoding="utf-8")
        except OSError:
            return None
        return since, owner

    def _is_stale(self, owner: str, since: float) -> bool:
        return is_gone(owner) or time.monotonic() - since > GRACE_SECONDS

    def _remove(self) -> None:
        """Remove the lock by its own name: renamed first, it is nobody else's fresh one."""
        aside = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(aside)
            aside.unlink()
