"""Leases: which process trains which trial, so that sweeps on one storage share the work.

A lease carries its owner and a count that a heartbeat raises. It is dead when its owner was a
process of this machine that is gone, or when its count stood still for ``EXPIRY_SECONDS`` on the
watcher's own clock: clocks of different machines are never compared.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from thetaone.sweeps.storage._owner import is_gone, this_process

BEAT_SECONDS = 2.0
EXPIRY_SECONDS = 15.0  # seven beats: a process that swaps or whose disk stalls keeps its leases


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds it, and how often its heartbeat was heard."""

    owner: str
    beats: int = 0


class Board(Protocol):
    """Where leases are written down for all to see; every call is atomic."""

    def read(self) -> dict[str, Lease]:
        """All leases by key."""
        ...

    def replace(self, key: str, before: Lease | None, after: Lease) -> bool:
        """Write a lease if the one there is still ``before``; whether it was."""
        ...

    def beat(self, owner: str) -> None:
        """Raise the count of the owner's leases."""
        ...

    def drop(self, keys: Iterable[str], owner: str) -> None:
        """Remove those of the keys that the owner holds."""
        ...


class Leases:
    """The leases of one sweep.

    Args:
        board: Where they are written.
        clock: Seconds, never set back.
    """

    def __init__(self, board: Board, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._clock = clock
        self._owner = f"{this_process()}:{uuid.uuid4().hex[:8]}"
        self._held: set[str] = set()
        self._heard: dict[str, tuple[Lease, float]] = {}  # foreign leases, and since when
        self._lost: Exception | None = None

    def claim(self, keys: Iterable[str]) -> set[str]:
        """Take those of the keys that nobody alive holds; the ones taken."""
        if self._lost is not None:
            raise self._lost
        present = self._board.read()
        taken: set[str] = set()
        for key in keys:
            lease = present.get(key)
            free = lease is None or self._is_dead(key, lease)
            if free and self._board.replace(key, lease, Lease(self._owner)):
                taken.add(key)
        self._held |= taken
        return taken

    def release(self, keys: Iterable[str]) -> None:
        """Give keys back."""
        released = self._held.intersection(keys)
        self._held -= released
        if released:
            self._board.drop(released, self._owner)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Send heartbeats from a thread; give every lease back at the end."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.release(set(self._held))

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                if self._held:
                    self._board.beat(self._owner)
            except Exception as error:  # raised where the sweep next asks
                self._lost = error
                return

    def _is_dead(self, key: str, lease: Lease) -> bool:
        if is_gone(lease.owner):
            return True
        last, since = self._heard.get(key, (None, 0.0))
        if last != lease:
            self._heard[key] = (lease, self._clock())
            return False
        return self._clock() - since > EXPIRY_SECONDS
