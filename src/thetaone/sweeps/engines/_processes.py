"""A pool of one-thread worker processes that survives a worker's death and leaves no orphan.

Why not ``multiprocessing.Pool``: it waits forever for the result of a worker that was killed.

How workers start. On Linux without an accelerator they are forked: a few milliseconds, no import
of torch, and any task object works, in a script, a notebook or a test. A forked child must not
enter an OpenMP parallel region that its parent has used; like ``torch.utils.data.DataLoader``'s
workers it therefore computes with one thread, always. Elsewhere (macOS, Windows, a machine with a
GPU, whose context does not survive a fork) workers are spawned: task and optimizer must pickle,
and a script needs the usual ``if __name__ == "__main__"``.
"""

import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

import torch

from thetaone.errors import InputError
from thetaone.records import Trial
from thetaone.sweeps.engines._work import Item, Measured, Probe, Work

Question = Item | Probe
Answer = list[Trial] | Measured

ORPHAN_POLL_SECONDS = 1.0


class WorkerDiedError(Exception):
    """A worker ended without an answer: killed, out of memory, or a crash in native code."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: "connection.Connection[Any, Any]"
    question: Question | None = None


class WorkerPool:
    """Answers questions on ``n_processes`` processes of one thread each; a context manager.

    Args:
        work: Task and optimizer.
        n_processes: Workers [count].

    Raises:
        InputError: Workers must be spawned here and the task or the optimizer does not pickle.
    """

    def __init__(self, work: Work, n_processes: int) -> None:
        self._context = _context()
        if self._context.get_start_method() == "spawn":
            _check_pickles(work)
        self._work = work
        self._workers = [self._start() for _ in range(n_processes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    def ask(
        self, questions: Iterable[Question]
    ) -> Iterator[tuple[Question, Answer | WorkerDiedError]]:
        """Each question with its answer, as answers come; questions start in the given order.

        A worker that dies answers with ``WorkerDiedError`` and is replaced.
        """
        waiting = deque(questions)
        self._hand_out(waiting)
        while busy := [w for w in self._workers if w.question is not None]:
            ready = connection.wait([worker.pipe for worker in busy])
            for worker in (worker for worker in busy if worker.pipe in ready):
                question, worker.question = worker.question, None
                assert question is not None
                try:
                    answer: Answer | WorkerDiedError | BaseException = worker.pipe.recv()
                except EOFError:
                    answer = self._replace(worker)
                self._hand_out(waiting)
                if isinstance(answer, BaseException) and not isinstance(answer, WorkerDiedError):
                    raise answer
                yield question, answer

    def ask_all(self, question: Question) -> list[Answer | WorkerDiedError]:
        """The question answered by every worker at the same time."""
        return [answer for _, answer in self.ask([question] * len(self._workers))]

    def _hand_out(self, waiting: "deque[Question]") -> None:
        for worker in self._workers:
            if worker.question is None and waiting:
                worker.question = waiting.popleft()
                worker.pipe.send(worker.question)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(  # pyright: ignore[reportAttributeAccessIssue]
            target=_serve, args=(theirs, self._work, os.getpid()), daemon=True
        )
        with warnings.catch_warnings():  # Python 3.12+ warns of any fork beside threads; see above
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replace(self, worker: _Worker) -> WorkerDiedError:
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        worker.pipe.close()
        fresh = self._start()
        worker.process, worker.pipe = fresh.process, fresh.pipe
        return WorkerDiedError(f"the worker process died with {how}; perhaps out of memory")


def _serve(pipe: Any, work: Work, parent: int) -> None:
    """A worker's life: answer until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            answer = work.answer(pipe.recv())
        except EOFError:
            return
        except Exception as error:  # carried to the parent, which raises it
            answer = error
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent was killed, even amid a training."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_POLL_SECONDS)
    os._exit(1)


def _context() -> BaseContext:
    forkable = sys.platform == "linux" and not torch.accelerator.is_available()
    return get_context("fork" if forkable else "spawn")


def _check_pickles(work: Work) -> None:
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"worker processes cannot receive this task or optimizer: {error}. Put the task in a "
            "file and pass its path, or use engine='serial'"
        ) from error
