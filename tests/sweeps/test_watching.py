import logging
from pathlib import Path
from typing import Any

import pytest
from toy import Toy

import thetaone as t1
from thetaone.errors import MissingExtraError
from thetaone.records import Pace, ProgressEvent, SweepResult, Trial

SMALL: dict[str, Any] = {
    "widths": [4, 8], "lrs": [2**-8, 2**-6, 2**-4], "seeds": [0, 1], "steps": 4,
    "engine": "serial", "optimizer": "Adam",
}  # fmt: skip


def event(done: int, total: int = 100, phase: str = "sweep") -> ProgressEvent:
    return ProgressEvent(phase=phase, n_done=done, n_total=total, message="m")


def test_a_line_at_the_ends_of_a_phase_and_every_half_minute_with_the_time_left() -> None:
    times = iter([0.0, 1.0, 29.0, 31.0, 32.0, 62.0, 63.0, 64.0])
    pace = Pace(clock=lambda: next(times))
    said = [pace.line(event(done)) for done in (10, 11, 29, 41, 42, 72, 100)]
    assert said == [
        "sweep: 10/100 m", None, None, "sweep: 41/100 m, 59 s left", None,
        "sweep: 72/100 m, 28 s left", "sweep: 100/100 m",
    ]  # fmt: skip
    assert pace.line(event(0, phase="target")) == "target: 0/100 m"


def test_a_sweep_writes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="thetaone"):
        t1.sweep(Toy(), **SMALL)
    lines = [record.message for record in caplog.records if record.name == "thetaone"]
    assert lines[0].startswith("sweep: 0/12 12 trials, none stored")
    assert lines[-1].startswith("sweep: 12/12 width")
    assert len(lines) <= 4


def test_callbacks_see_the_result_grow() -> None:
    seen: list[tuple[int, int, int]] = []

    def watch(result: SweepResult, trial: Trial) -> None:
        assert trial in result.trials
        assert trial.parametrization == "mup"
        seen.append((len(result.trials), result.n_trained, len(result.optima)))

    result = t1.sweep(Toy(), **SMALL, callbacks=[watch])
    assert [n for n, _, _ in seen] == [n for _, n, _ in seen] == list(range(1, 13))
    assert seen[0][2] == 0
    assert seen[-1][2] == len(result.optima) == 2


@pytest.mark.parametrize("search", ["grid", "auto"])
@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_callback_stops_the_sweep_which_goes_on_when_asked_again(
    tmp_path: Path, engine: str, search: str
) -> None:
    asked = {**SMALL, "engine": engine, "search": search, "storage": tmp_path / "j"}
    others: list[int] = []
    stopped = t1.sweep(
        Toy(), **asked,
        callbacks=[
            lambda result, trial: len(result.trials) == 5,
            lambda result, trial: others.append(len(result.trials)),
        ],
    )  # fmt: skip
    assert len(stopped.trials) == stopped.n_trained == 5
    assert others == [1, 2, 3, 4, 5]  # those after it are still told
    assert any("a callback stopped the sweep" in note for note in stopped.notes)
    assert not (tmp_path / "j.leases").exists()  # what was claimed is free
    whole = t1.sweep(Toy(), **asked)
    assert whole.n_reused == 5
    assert whole.optima == t1.sweep(Toy(), **{**asked, "storage": None}).optima


def test_a_row_a_trial() -> None:
    pytest.importorskip("pandas")
    result = t1.sweep(Toy(), **SMALL, axes={"eps": [1e-8, 1e-3]})
    frame = result.to_dataframe()
    assert len(frame) == len(result.trials) == 24
    assert list(frame["final_loss"]) == [trial.final_loss for trial in result.trials]
    assert list(frame["eps"]) == [trial.axes["eps"] for trial in result.trials]
    means = frame[frame["eps"] == 1e-8].groupby(["width", "lr"])["final_loss"].mean()
    assert means[4, 2**-6] == pytest.approx(
        sum(t.final_loss for t in result.trials
            if (t.width, t.lr, t.axes["eps"]) == (4, 2**-6, 1e-8)) / 2
    )  # fmt: skip


def test_without_pandas_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    result = t1.sweep(Toy(), **{**SMALL, "widths": [4], "lrs": [0.1], "seeds": [0]})
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[dataframe\]'"):
        result.to_dataframe()
