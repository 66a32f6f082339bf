"""One thread that does transfers in the order in which they are asked for.

Interrupts may come at any moment, and processes fork: there is no lock here that Python code holds,
only queues that C code guards. Errors come back as text, so that no traceback keeps a tensor alive.
"""

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from thetaone.errors import DiskTierError


class Answer:
    """What a job will have returned."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._queue: SimpleQueue[tuple[Any, str]] = SimpleQueue()

    def put(self, value: Any, error: str = "") -> None:
        """Answer, once."""
        self._queue.put((value, error))

    def result(self) -> Any:
        """Wait for the job.

        Raises:
            DiskTierError: It failed, or was asked for before this process was forked.
        """
        if self._process != os.getpid():
            raise DiskTierError("asked for by another process, before a fork")
        value, error = self._queue.get()
        if error:
            raise DiskTierError(error)
        return value


class Background:
    """A daemon thread, started by the first job; each process after a fork has its own."""

    def __init__(self) -> None:
        self._process = -1
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Answer:
        """Run a job after those before it; at once where no thread can be had."""
        answer = Answer()
        if not self._running():
            _answer(answer, job, arguments)
        else:
            self._jobs.put((answer, job, arguments))
        return answer

    def close(self) -> None:
        """End the thread when its jobs are done; a later job starts another."""
        thread, self._thread = self._thread, None
        if thread is not None and self._process == os.getpid():
            self._jobs.put(None)
            thread.join()

    def _running(self) -> bool:
        if self._thread is not None and self._process == os.getpid():
            return True
        self._process, self._jobs = os.getpid(), SimpleQueue()
        thread = threading.Thread(
            target=_serve, args=(self._jobs,), name="thetaone-disk", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            return False
        weakref.finalize(self, self._jobs.put, None).atexit = False
        self._thread = thread
        return True


def _serve(jobs: "SimpleQueue[Any]") -> None:
    while (item := jobs.get()) is not None:
        _answer(*item)
        del item  # what it holds must not wait for the next one


def _answer(answer: Answer, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    value, text = None, ""
    try:
        value = job(*arguments)
    except Exception as error:
        text = f"{error}" or repr(error)
    answer.put(value, text)  # what the failed job held is free by now
