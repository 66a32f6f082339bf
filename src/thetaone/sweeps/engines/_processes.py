"""A pool of one-thread worker processes that survives a worker's death and leaves no orphan.

Why not ``multiprocessing.Pool``: it waits forever for the result of a worker that was killed.

How workers start. On Linux without an accelerator they are forked: a few milliseconds, no import
of torch, and any task object works, in a script, a notebook or a test. A forked child must not
enter an OpenMP parallel region that its parent has used; like ``torch.utils.data.DataLoader``'s
workers it therefore computes with one thread, always. Elsewhere (macOS, Windows, a machine with a
GPU, whose context does not survive a fork) workers are spawned: task and optimizer must pickle,
and a script needs the usual ``if __name__ == "__main__"``.

Workers may have children of their own (a ``DataLoader`` with workers), so they are no daemons of
``multiprocessing``; each leads a process group that is ended with it.
"""

import atexit
import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import torch

from thetaone.errors import first_line
from thetaone.records import Trial
from thetaone.sweeps._trials import Work
from thetaone.sweeps.engines._work import Item, Measured, Probe, answers

Question = Item | Probe
Answer = Trial | Measured

ORPHAN_POLL_SECONDS = 1.0


class WorkerDiedError(Exception):
    """A worker ended without an answer: killed, out of memory, or a crash in native code."""


@dataclass(slots=True)
class _Worker:
    index: int
    process: BaseProcess
    pipe: "connection.Connection[Any, Any]"
    question: Question | None = None


class WorkerPool:
    """Answers questions on ``n_processes`` processes of one thread each; a context manager.

    Args:
        work: Task and optimizer.
        n_processes: Workers [count].
    """

    def __init__(self, work: Work, n_processes: int) -> None:
        self._context = _context()
        self._work = work
        self._workers = [self._start(index) for index in range(n_processes)]
        atexit.register(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """End every worker and what it started."""
        atexit.unregister(self._end)
        for worker in self._workers:
            _kill_group(worker.process)
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def ask(
        self, questions: Iterable[Question]
    ) -> Iterator[tuple[Question, Answer | WorkerDiedError]]:
        """Each question with its answers, as they come; questions start in the given order.

        A question is taken from the iterable when a worker is free for it. A worker that dies
        answers with ``WorkerDiedError`` and is replaced; one that died while it had nothing to
        do is replaced in silence.
        """
        waiting = iter(questions)
        self._hand_out(waiting)
        while busy := [w for w in self._workers if w.question is not None]:
            ready = connection.wait([worker.pipe for worker in busy])
            for worker in (worker for worker in busy if worker.pipe in ready):
                question = worker.question
                assert question is not None
                try:
                    answer: Answer | WorkerDiedError | BaseException | None = worker.pipe.recv()
                except (EOFError, OSError):
                    answer = self._replace(worker)
                if answer is None or isinstance(answer, BaseException):
                    worker.question = None
                    self._hand_out(waiting)
                if isinstance(answer, BaseException) and not isinstance(answer, WorkerDiedError):
                    raise answer
                if answer is not None:
                    yield question, answer

    def ask_all(self, question: Question) -> list[Answer | WorkerDiedError]:
        """The question answered by every worker at the same time."""
        return [answer for _, answer in self.ask([question] * len(self._workers))]

    def _hand_out(self, waiting: Iterator[Question]) -> None:
        for worker in self._workers:
            if worker.question is None:
                question = next(waiting, None)
                if question is None:
                    return
                self._send(worker, question)

    def _send(self, worker: _Worker, question: Question) -> None:
        try:
            worker.pipe.send(question)
        except OSError:  # it died while it had nothing to do
            self._replace(worker)
            worker.pipe.send(question)
        worker.question = question

    def _start(self, index: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(  # pyright: ignore[reportAttributeAccessIssue]
            target=_serve, args=(theirs, self._work, os.getpid(), index), daemon=False
        )
        with warnings.catch_warnings():  # Python 3.12+ warns of any fork beside threads; see above
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            process.start()
        theirs.close()
        return _Worker(index, process, ours)

    def _replace(self, worker: _Worker) -> WorkerDiedError:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        worker.pipe.close()
        _kill_group(worker.process)  # what it had started itself
        fresh = self._start(worker.index)
        worker.process, worker.pipe = fresh.process, fresh.pipe
        return WorkerDiedError(f"the worker process died with {how}; perhaps out of memory")


def _serve(pipe: Any, work: Work, parent: int, index: int) -> None:
    """A worker's life: answer until the parent is gone."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # its own children end with it, and the terminal's signals pass it by
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            question = pipe.recv()
            try:
                for answer in answers(work, question):
                    pipe.send(answer)
            except OSError:
                return
            except Exception as error:  # carried to the parent, which raises it
                pipe.send(error)
            else:
                pipe.send(None)


def _kill_group(process: BaseProcess) -> None:
    """End a worker and its children."""
    with contextlib.suppress(OSError):
        if process.pid is not None and hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent was killed, even amid a training."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_POLL_SECONDS)
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _context() -> BaseContext:
    forkable = sys.platform == "linux" and not torch.accelerator.is_available()
    return get_context("fork" if forkable else "spawn")


def why_not_sent(work: Work) -> str:
    """Why worker processes cannot receive task and optimizer; empty when they can."""
    if _context().get_start_method() == "fork":
        return ""
    try:
        pickle.dumps(work)
    except Exception as error:  # __reduce__ and __getstate__ are the user's code
        return f"{type(error).__name__}: {first_line(error)}"
    return ""
