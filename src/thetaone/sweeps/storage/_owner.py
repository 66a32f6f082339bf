"""Who holds a lock or a lease, in a word that says whether the process still lives."""

import functools
import hashlib
import os
import platform
from pathlib import Path


def this_process() -> str:
    """``machine:process:start``; the machine as a hash, so that no host name is stored.

    Examples:
        >>> is_gone(this_process())
        False
    """
    return _named(os.getpid())


def is_gone(owner: str) -> bool:
    """Whether the owner is a process of this machine that no longer runs.

    Of another machine nothing is known: False.
    """
    machine, _, process = owner.partition(":")
    number, _, rest = process.partition(":")
    started = rest.partition(":")[0]
    if machine != _machine() or not number.isdecimal():
        return False
    return _started(int(number)) != started


@functools.cache
def _named(process: int) -> str:
    return f"{_machine()}:{process}:{_started(process)}"


@functools.cache
def _machine() -> str:
    """This start of this machine and its process numbers: containers on one host differ."""
    parts = [platform.node(), str(os.getuid()) if hasattr(os, "getuid") else ""]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(str(Path(path).readlink()) if "ns" in path else Path(path).read_text())
        except OSError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _started(process: int) -> str:
    """When a process started, as the kernel counts; empty when it does not run.

    Process numbers are used again; number and start together are not.
    """
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() or not _signalled(process) else "running"
    return "" if state in "ZX" else fields[18]


def _signalled(process: int) -> bool:
    """Whether a process of this number runs, where there is no ``/proc``."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
