"""Progress bars on the error stream: one per phase, lines now and then when it is no terminal."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

from thetaone.records import Pace, ProgressEvent


class Progress:
    """Called with every event of a job; shows a bar for each phase.

    Examples:
        >>> with Progress() as progress:
        ...     progress(ProgressEvent(n_done=1, n_total=2, message="width 32"))
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._phases: dict[str, TaskID] = {}
        self._pace = Pace()

    def __call__(self, event: ProgressEvent) -> None:
        """Show how much of the event's phase is done."""
        phase, done, total, line = event.phase, event.n_done, event.n_total, event.message
        if not self._console.is_terminal:
            text = self._pace.line(event)
            if text is not None:
                print(text, file=sys.stderr)
            return
        if phase not in self._phases:
            self._phases[phase] = self._bars.add_task(phase, total=total, line=line)
        self._bars.update(self._phases[phase], completed=done, total=total, line=line)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
