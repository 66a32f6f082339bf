"""Progress on the error stream: a bar a phase, and lines of a log where it is no terminal."""

import sys
import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from thetaone.records import Pace, ProgressEvent

LOOK_SECONDS = 5.0  # how often a log is looked after while nothing happens


class Progress:
    """Called with every event of a job; shows how much of each phase is done, and the time left.

    A log gets a line when a phase begins and ends and every half minute in between, whether
    something happened or not.

    Args:
        pace: Says when a log gets a line, and what.

    Examples:
        >>> with Progress() as progress:
        ...     progress(ProgressEvent(n_done=1, n_total=2, message="width 32"))
    """

    def __init__(self, pace: Pace | None = None) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[line]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._pace = Pace() if pace is None else pace
        self._last: ProgressEvent | None = None
        self._ended = threading.Event()

    def __call__(self, event: ProgressEvent) -> None:
        """Show how much of the event's phase is done."""
        self._last = event
        if self._console.is_terminal:
            self._draw(event)
        else:
            self._say(event)

    def __enter__(self) -> Self:
        self._bars.start()
        if not self._console.is_terminal:
            threading.Thread(target=self._look_after, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._bars.stop()

    def _look_after(self) -> None:
        """Say again where the job stands when it has not been heard of for long."""
        while not self._ended.wait(LOOK_SECONDS):
            if self._last is not None and self._last.n_done < self._last.n_total:
                self._say(self._last)

    def _draw(self, event: ProgressEvent) -> None:
        if event.phase not in self._tasks:
            self._tasks[event.phase] = self._bars.add_task(
                event.phase, total=event.n_total, line="", left=""
            )
        self._bars.update(
            self._tasks[event.phase], completed=event.n_done, total=event.n_total,
            line=event.message, left=self._pace.left(event),
        )  # fmt: skip

    def _say(self, event: ProgressEvent) -> None:
        text = self._pace.line(event)
        if text is not None:
            print(text, file=sys.stderr, flush=True)
