"""Progress in a log: first and last words at once, and a line where nothing happens for long."""

import pytest

from thetaone.cli import _progress
from thetaone.cli._progress import Progress
from thetaone.records import Pace, ProgressEvent


def event(done: int, total: int, phase: str = "sweep") -> ProgressEvent:
    return ProgressEvent(phase=phase, n_done=done, n_total=total, message=f"trial {done}")


def test_a_log_gets_the_first_and_the_last_word_of_a_phase(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress() as progress:
        for done in range(5):
            progress(event(done, 4))
        progress(event(0, 1, "laws"))
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 0/4 trial 0",
        "sweep: 4/4 trial 4",
        "laws: 0/1 trial 0",
    ]


def look_after(progress: Progress, times: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > times

    monkeypatch.setattr(progress._ended, "wait", wait)
    progress._look_after()
    return waits


def test_a_job_that_says_nothing_is_heard_of_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = iter([0.0, 20.0, 25.0, 45.0, 50.0, 55.0])
    progress = Progress(Pace(clock=lambda: next(moments)))
    progress(event(10, 40))
    progress(event(30, 40))
    waits = look_after(progress, 4, monkeypatch)
    assert waits == [_progress.LOOK_SECONDS] * 5
    assert capsys.readouterr().err.splitlines() == [
        "sweep: 10/40 trial 10",
        "sweep: 30/40 trial 30, 22 s left",  # twenty in 45 s, ten to come
    ]


def test_a_job_that_is_done_is_not_heard_of_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(Pace(clock=iter([0.0]).__next__))
    progress(event(2, 2))
    look_after(progress, 3, monkeypatch)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bar_has_the_time_left() -> None:
    moments = iter([0.0, 45.0])
    progress = Progress(Pace(clock=lambda: next(moments)))
    progress._draw(event(10, 40))
    progress._draw(event(30, 40))
    (task,) = progress._bars.tasks
    assert (task.completed, task.total, task.fields["left"]) == (30, 40, "22 s left")
