"""The disk tier: a directory, a quota, measured speeds, and one background thread."""

import os
import time
import weakref
import zlib
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from thetaone.errors import DiskTierError, InputError
from thetaone.records import DiskCost, local_path, parse_bytes
from thetaone.rematerialization.disk._background import Answer, Background
from thetaone.rematerialization.disk._losses import Losses
from thetaone.rematerialization.disk._spill_files import (
    SpillFiles,
    aligned_buffer,
    padded,
    read_all,
    write_all,
)


class Spill:
    """A stretch of a nameless file; it is free again when nothing refers to this any more.

    Attributes:
        size: Bytes in it.
        offset: Where it starts in its file [bytes].
        file: The file; None until it has one.
        checksum: CRC-32 of what was written.
    """

    def __init__(self, size: int) -> None:
        self.size, self.offset, self.checksum = size, 0, 0
        self.file: SpillFile | None = None


class SpillFile:
    """One nameless file that holds all spills of a process; few descriptors, however many spills.

    Attributes:
        descriptor: Of the open file.
        direct: Whether it bypasses the page cache.
        process: The process that opened it; a forked one opens its own.
    """

    def __init__(self, files: SpillFiles) -> None:
        self.process = os.getpid()
        self.descriptor, self.direct = files.create()
        weakref.finalize(self, files.close, self.descriptor).atexit = False


class DiskTier:
    """A directory to which kept activations go and from which they come back.

    Everything is in one file without a name, so no crash leaves one, two processes may share a
    directory, and the number of descriptors does not grow. Data bypasses the page cache
    (``O_DIRECT``), or is synced and dropped where the file system refuses that. Every read is
    checked against a CRC-32. A tmpfs is memory: putting a tier there saves nothing.

    Args:
        path: An existing directory.
        quota: Most bytes on disk at once, e.g. ``"20GiB"``; None is no limit.
        cost: What transfers cost; None measures it when first asked for.
        files: The file layer; tests put a faulty one in its place.

    Raises:
        InputError: The path is empty, or the quota is not a quantity of bytes.
        DiskTierError: The path is not a directory, or no file can be made in it.

    Examples:
        >>> import tempfile
        >>> tier = DiskTier(tempfile.gettempdir(), quota="1GiB")
        >>> tier.quota
        1073741824
    """

    def __init__(
        self,
        path: str | Path,
        quota: int | str | None = None,
        *,
        cost: DiskCost | None = None,
        files: SpillFiles | None = None,
    ) -> None:
        if not str(path):
            raise InputError(f"disk={path!r} is empty: name a directory")
        self.path = local_path(path).absolute()
        if not self.path.is_dir():
            raise DiskTierError(f"disk={str(path)!r} is not a directory: create it first")
        self.quota = None if quota is None else parse_bytes(quota, where="quota")
        if cost is not None and cost.quota_bytes != self.quota:
            raise InputError(
                f"quota={self.quota} and cost.quota_bytes={cost.quota_bytes} differ: give one quota"
            )
        self.files = files or SpillFiles(self.path)
        try:  # before anything is planned on it
            self.files.close(self.files.create()[0])
        except OSError as error:
            raise DiskTierError(
                f"disk={str(path)!r}: no file can be made there: {error.strerror}. "
                "Pass a directory that you may write to"
            ) from error
        self.losses = Losses(self.path)
        self._cost = cost
        self._file: SpillFile | None = None
        self._spills: WeakSet[Spill] = WeakSet()  # what lives: nothing else is to be given back
        self._lock = RLock()  # a collection while it is held may give bytes back
        self._buffers: list[memoryview] = []
        self._background = Background()

    @property
    def cost(self) -> DiskCost:
        """What transfers cost; measured once, when first asked for."""
        if self._cost is None:
            self._cost = self._measure()
        return self._cost

    def submit(self, job: Any, *given: Any) -> Answer:
        """Run a job on the background thread."""
        return self._background.submit(job, *given)

    @property
    def used_bytes(self) -> int:
        """Bytes on disk now; interrupted transfers hold none."""
        with self._lock:
            return sum(spill.size for spill in self._spills)

    def write(self, data: memoryview) -> Spill:
        """Write bytes to the disk.

        Raises:
            OSError: The quota or the disk is full, the directory is gone, or the device fails.
        """
        spill = Spill(len(data))
        with self._lock:
            used = self.used_bytes
            if self.quota is not None and used + spill.size > self.quota:
                raise DiskTierError(
                    f"{spill.size:,} more bytes exceed the quota of {self.quota:,} in {self.path}"
                )
            self._place(spill)
            self._spills.add(spill)
        self._store(spill, data)
        return spill

    def _place(self, spill: Spill) -> None:
        """Give a spill the first gap that holds it."""
        if self._file is None or self._file.process != os.getpid():
            self._file = SpillFile(self.files)
        spill.file, file = self._file, self._file
        taken = sorted((one.offset, one.size) for one in self._spills if one.file is file)
        if not taken:
            self.files.empty(file.descriptor)
        for offset, size in taken:
            if spill.offset + padded(spill.size) <= offset:
                break
            spill.offset = offset + padded(size)

    def _store(self, spill: Spill, data: memoryview) -> None:
        assert spill.file is not None
        buffer = self._buffer()
        try:
            write_all(self.files, spill.file, data, buffer, start=spill.offset)
        finally:
            self._buffers.append(buffer)
        spill.checksum = zlib.crc32(data)

    def read(self, spill: Spill, data: memoryview) -> None:
        """Fill ``data`` with what was written.

        Raises:
            OSError: The device fails, or the bytes are not those that were written.
        """
        assert spill.file is not None
        buffer = self._buffer()
        try:
            read_all(self.files, spill.file, data, buffer, start=spill.offset)
        finally:
            self._buffers.append(buffer)
        if zlib.crc32(data) != spill.checksum:
            raise DiskTierError(
                f"a spilled activation of {spill.size:,} bytes in {self.path} came back changed: "
                "its checksum differs"
            )

    def close(self) -> None:
        """End the background thread; a later use starts a new one."""
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        """Copied and pickled without its thread and buffers."""
        return _rebuild, (self.path, self.quota, self._cost)

    def _buffer(self) -> memoryview:
        try:
            return self._buffers.pop()
        except IndexError:
            return aligned_buffer()

    def _measure(self) -> DiskCost:
        """Fit seconds = per file + bytes / speed through a small and a large file."""
        small, large = 2**16, 2**23
        if self.quota is not None:
            large = max(small * 2, min(large, self.quota))
        try:
            times = {size: self._timed(size) for size in (small, large)}
        except OSError as error:
            raise DiskTierError(f"disk={str(self.path)!r} cannot be measured: {error}") from error
        speeds = [
            (large - small) / max(times[large][way] - times[small][way], 1e-9) for way in (0, 1)
        ]
        fixed = max(0.0, *(times[small][way] - small / speeds[way] for way in (0, 1)))
        return DiskCost(
            write_bytes_per_second=speeds[0],
            read_bytes_per_second=speeds[1],
            file_seconds=fixed,
            quota_bytes=self.quota,
        )

    def _timed(self, size: int) -> tuple[float, float]:
        """Median seconds of three writes and of three reads of one size, outside the quota."""
        writes: list[float] = []
        reads: list[float] = []
        data, back = memoryview(bytes(range(256)) * (size // 256)), memoryview(bytearray(size))
        for _ in range(3):
            start = time.perf_counter()
            spill = Spill(size)
            spill.file = SpillFile(self.files)
            self._store(spill, data)
            middle = time.perf_counter()
            self.read(spill, back[: len(data)])
            writes.append(middle - start)
            reads.append(time.perf_counter() - middle)
            del spill
        return sorted(writes)[1], sorted(reads)[1]


def _rebuild(path: Path, quota: int | None, cost: DiskCost | None) -> DiskTier:
    return DiskTier(path, quota, cost=cost)
