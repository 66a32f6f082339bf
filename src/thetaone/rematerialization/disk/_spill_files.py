"""Files without a name that pass the page cache by.

A file is unlinked before its first byte is written, so that no crash leaves one. Data goes around
the page cache with O_DIRECT; where a file system refuses that flag, each chunk is synced and its
pages are dropped. On a file system that lives in memory (tmpfs) neither saves any memory.
"""

import contextlib
import errno
import mmap
import os
import tempfile
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 2**20  # a multiple of every sector size; also the size of the transfer buffer


class SpillFiles:
    """The operating system's files in one directory; tests put faulty ones in its place.

    Args:
        directory: Where the files live, without a name.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> tuple[int, bool]:
        """A new nameless file: descriptor, and whether it bypasses the page cache.

        Raises:
            OSError: The directory is gone, read-only or out of space or descriptors.
        """
        for direct in (os.O_DIRECT, 0):
            try:
                return self._open(direct), bool(direct)
            except OSError as error:
                if not direct or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        raise AssertionError("the loop returns or raises")

    def write(self, descriptor: int, chunk: memoryview, offset: int) -> int:
        """Write a chunk; the number of bytes written."""
        return os.pwrite(descriptor, chunk, offset)

    def read(self, descriptor: int, chunk: memoryview, offset: int) -> int:
        """Fill a chunk; the number of bytes read."""
        return os.preadv(descriptor, [chunk], offset)

    def drop(self, descriptor: int) -> None:
        """Push what was written to the device and its pages out of memory."""
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def empty(self, descriptor: int) -> None:
        """Give all blocks of a file back to the disk."""
        os.ftruncate(descriptor, 0)

    def close(self, descriptor: int) -> None:
        """Close, which frees the blocks: nothing else refers to the file."""
        os.close(descriptor)

    def _open(self, direct: int) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | direct
        try:
            return os.open(self.directory, flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            # EISDIR: a kernel, EOPNOTSUPP: a file system that knows no nameless files
            if error.errno not in (errno.EISDIR, errno.EOPNOTSUPP):
                raise
        name = Path(tempfile.mktemp(prefix=".thetaone-", dir=self.directory))
        try:  # a file system may make the file and then refuse the flag
            return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600)
        finally:
            with contextlib.suppress(FileNotFoundError):
                name.unlink()


def aligned_buffer() -> memoryview:
    """Page-aligned memory for one chunk, as O_DIRECT requires; a forked process has its own."""
    return memoryview(mmap.mmap(-1, CHUNK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class OpenFile(Protocol):
    """An open file: its descriptor, and whether it bypasses the page cache."""

    descriptor: int
    direct: bool


def write_all(
    files: SpillFiles, file: OpenFile, data: memoryview, buffer: memoryview, *, start: int = 0
) -> None:
    """Write ``data`` from ``start`` chunk by chunk through an aligned buffer, the last one padded.

    Raises:
        OSError: A chunk could not be written whole.
    """
    for offset in range(0, len(data), CHUNK_BYTES):
        part = data[offset : offset + CHUNK_BYTES]
        buffer[: len(part)] = part
        chunk = buffer[: padded(len(part))]
        written = files.write(file.descriptor, chunk, start + offset)
        if written != len(chunk):
            raise OSError(errno.EIO, f"short write: {written} of {len(chunk)} bytes at {offset}")
        if not file.direct:
            files.drop(file.descriptor)


def read_all(
    files: SpillFiles, file: OpenFile, data: memoryview, buffer: memoryview, *, start: int = 0
) -> None:
    """Fill ``data`` from ``start`` chunk by chunk.

    Raises:
        OSError: A chunk could not be read whole.
    """
    for offset in range(0, len(data), CHUNK_BYTES):
        size = min(CHUNK_BYTES, len(data) - offset)
        chunk = buffer[: padded(size)]
        count = files.read(file.descriptor, chunk, start + offset)
        if count < size:
            raise OSError(errno.EIO, f"short read: {count} of {size} bytes at {offset}")
        data[offset : offset + size] = buffer[:size]
        if not file.direct:
            files.drop(file.descriptor)


def padded(size: int) -> int:
    """Bytes that so many take on disk: whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
