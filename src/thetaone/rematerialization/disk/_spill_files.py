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


def write_all(
    files: SpillFiles, descriptor: int, data: memoryview, buffer: memoryview, *, direct: bool
) -> None:
    """Write ``data`` chunk by chunk through an aligned buffer, the last one padded.

    Raises:
        OSError: A chunk could not be written whole.
    """
    for offset in range(0, len(data), CHUNK_BYTES):
        part = data[offset : offset + CHUNK_BYTES]
        buffer[: len(part)] = part
        chunk = buffer[: _padded(len(part))]
        written = files.write(descriptor, chunk, offset)
        if written != len(chunk):
            raise OSError(errno.EIO, f"short write: {written} of {len(chunk)} bytes at {offset}")
        if not direct:
            files.drop(descriptor)


def read_all(
    files: SpillFiles, descriptor: int, data: memoryview, buffer: memoryview, *, direct: bool
) -> None:
    """Fill ``data`` chunk by chunk.

    Raises:
        OSError: A chunk could not be read whole.
    """
    for offset in range(0, len(data), CHUNK_BYTES):
        size = min(CHUNK_BYTES, len(data) - offset)
        chunk = buffer[: _padded(size)]
        count = files.read(descriptor, chunk, offset)
        if count < size:
            raise OSError(errno.EIO, f"short read: {count} of {size} bytes at {offset}")
        data[offset : offset + size] = buffer[:size]
        if not direct:
            files.drop(descriptor)


def _padded(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
