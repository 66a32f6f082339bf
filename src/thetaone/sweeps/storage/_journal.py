"""Optuna's append-only journal, read and written so that a bad line costs one record.

Each line that is written here ends with a checksum of itself. A line that is torn, is not JSON,
whose checksum differs or that lacks what its operation needs is left out, with its number; a last
line without end is cut, under the lock, before the next one is appended. Optuna's dashboard and
samplers read the file as it is, and lines that they append are read here.

Optuna holds every trial it has read in memory. What a trial is found by is a fraction of it: its
attributes, the losses among them, and its curve stay in the file, and Optuna holds their place.
"""

import json
import math
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from thetaone.sweeps.storage._file_lock import FileLock

# what Optuna's replay of each operation reads, beside op_code and worker_id
_NEEDED: dict[int, tuple[str, ...]] = {
    0: ("study_name", "directions"),
    1: ("study_id",),
    2: ("study_id", "user_attr"),
    3: ("study_id", "system_attr"),
    4: ("study_id",),
    5: ("trial_id", "param_name", "param_value_internal", "distribution"),
    6: ("trial_id", "state", "values"),
    7: ("trial_id", "step", "intermediate_value"),
    8: ("trial_id", "user_attr"),
    9: ("trial_id", "system_attr"),
}
# between waits for the disk: a killed process loses nothing, a power cut what ended since the last
SYNC_SECONDS = 1.0
_CREATE_TRIAL = 4
_SEAL = b',"crc":"'
_BEGINNING = b'{"op_code":'

Log = dict[str, Any]


class Journal:
    """The journal at a path: what Optuna calls a journal backend.

    Args:
        path: The file; made when absent.

    Raises:
        ValueError: The file has no line of a journal: it is something else, and is left alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path)
        self._n_logs, self._n_lines, self._offset = 0, 0, 0  # read so far
        self._synced = -math.inf
        self.damaged_lines: list[int] = []
        self.n_trials: Counter[int] = Counter()  # read so far, of each study
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device filled
            raise ValueError("it is no regular file")
        path.touch()
        self._require_journal()

    def read_logs(self, log_number_from: int) -> Iterator[Log]:
        """The good lines from a number on, counting good lines only."""
        if log_number_from < self._n_logs:
            self._n_logs, self._n_lines, self._offset = 0, 0, 0
            self.damaged_lines.clear()
            self.n_trials.clear()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):  # being written, or torn
                    return
                self._n_lines += 1
                place, self._offset = self._offset, self._offset + len(line)
                log = _decode(line)
                if log is None:
                    self.damaged_lines.append(self._n_lines)
                    continue
                self._n_logs += 1
                if log["op_code"] == _CREATE_TRIAL:
                    self.n_trials[log["study_id"]] += 1
                    log["user_attrs"], log["intermediate_values"] = {"place": place}, {}
                if self._n_logs > log_number_from:
                    yield log

    def attributes(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's attributes as they were written; none when its line is damaged by now.

        Args:
            kept: What Optuna holds of them: their place in the file, and later additions.
        """
        with self._path.open("rb") as file:
            file.seek(kept["place"])
            log = _decode(file.readline()) or {}
        return {**log.get("user_attrs", {}), **kept}

    def append_logs(self, logs: list[Log]) -> None:
        """Append lines under the lock, after cutting a torn one."""
        lines = b"".join(_encode(log) for log in logs)
        with self._lock, self._path.open("r+b") as file:
            _cut_torn_line(file)
            file.write(lines)
            file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def _require_journal(self) -> None:
        with self._path.open("rb") as file:
            lines = list(_first_good(file))
        if lines and not any(lines):
            raise ValueError("no line of it is a record of a journal")


def _first_good(lines: Iterable[bytes]) -> Iterator[bool]:
    """For each line whether it is a record, up to the first that is."""
    for line in lines:
        good = _decode(line) is not None if line.endswith(b"\n") else line.startswith(_BEGINNING)
        yield good
        if good:
            return


def _encode(log: Log) -> bytes:
    body = json.dumps(log, separators=(",", ":")).encode()
    return body[:-1] + _SEAL + f'{zlib.crc32(body):08x}"}}\n'.encode()


def _decode(line: bytes) -> Log | None:
    """The operation of a line; None when the line is damaged."""
    try:
        log = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(log, dict):
        return None
    fields = cast(Log, log)
    if "crc" in fields:
        body, _, _ = line.rpartition(_SEAL)
        if fields.pop("crc") != f"{zlib.crc32(body + b'}'):08x}":
            return None
    needed = _NEEDED.get(fields.get("op_code", -1))
    complete = needed is not None and all(key in fields for key in (*needed, "worker_id"))
    return fields if complete else None


def _cut_torn_line(file: Any) -> None:
    """Move to the end of the last whole line and drop what follows it.

    What is dropped was never acknowledged to anyone: its trial is trained again.
    """
    end = file.seek(0, os.SEEK_END)
    whole = end
    while whole:
        start = max(0, whole - 65536)
        file.seek(start)
        newline = file.read(whole - start).rfind(b"\n")
        if newline >= 0:
            whole = start + newline + 1
            break
        whole = start
    if whole < end:
        file.truncate(whole)
    file.seek(whole)
