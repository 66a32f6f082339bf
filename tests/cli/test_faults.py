"""What the user's own code raises is said with its line, and is no fault of the program's."""

import signal
from pathlib import Path

import pytest
from torch import nn

from thetaone.cli._interrupts import told
from thetaone.cli.main import main
from thetaone.errors import raised_by_user

TASK = """import torch
from torch import nn

def model(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))

def batches(seed):
    while True:
        yield torch.zeros(2, 4)

def loss(model, batch):
    return model(batch).view(3).mean()
"""


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
        main([*arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_line_of_a_task_that_raises_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TASK, encoding="utf-8")
    assert run("check", "mine.py", "--widths", "8,16") == 2
    error = capsys.readouterr().err
    assert "thetaone: task.loss raised RuntimeError: shape '[3]' is invalid" in error
    assert "(mine.py:12, in loss)" in error
    assert "unexpected" not in error


def test_what_this_package_raises_after_the_users_code_is_its_own() -> None:
    def ask_again() -> None:
        import thetaone.records

        thetaone.records.counted("three", "step")  # pyright: ignore[reportArgumentType]

    with pytest.raises(ValueError, match="Cannot specify ','") as ours:
        ask_again()
    assert raised_by_user(ours.value) == ""
    with pytest.raises(TypeError, match="must be Tensor") as theirs:
        nn.Linear(2, 2)("text")
    assert "in test_what_this_package_raises" in raised_by_user(theirs.value)


def test_a_misspelt_file_is_answered_with_the_one_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_task.py").write_text(TASK, encoding="utf-8")
    assert run("check", str(tmp_path / "my_taks.py")) == 2
    assert "did you mean 'my_task.py'?" in capsys.readouterr().err.lower()


def test_a_folder_stands_for_the_file_that_a_command_wrote_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, name in (("report", "result.json"), ("train", "recipe.json")):
        assert run(command, str(tmp_path)) == 2
        assert str(tmp_path / name) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "train"])
def test_a_name_too_long_for_a_file_is_said(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(command, "a" * 300, *(["--report", str(tmp_path)] * (command == "report"))) == 2
    assert "File name too long" in capsys.readouterr().err


def test_an_interruption_says_what_is_kept_and_what_to_type() -> None:
    stop = KeyboardInterrupt()
    typed = ["sweep", "my task.py", "--storage", "postgresql://me:secret@host/db"]
    again = "thetaone sweep 'my task.py' --storage postgresql://me:***@host/db"
    assert told(stop, typed) == (
        f"interrupted; nothing was finished yet. Start again with: {again}"
    )
    stop.add_note("2 of 28 trials are kept in sweep.journal")
    assert told(stop, typed) == (
        f"interrupted; 2 of 28 trials are kept in sweep.journal. Go on with: {again}"
    )


def test_an_interrupted_command_ends_with_its_code_and_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("thetaone.laws.verify_laws", stopped)
    assert run("laws") == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "thetaone: interrupted; nothing was finished yet. Start again with: thetaone laws"
    )
