"""``thetaone sweep`` from the shell: results, resume, and what a wrong word says."""

import os
from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.records import SweepResult

CALL = [
    "sweep",
    "digits",
    "--widths",
    "8,16",
    "--lrs",
    "2^-8:2^-4:2",
    "--seeds",
    "0",
    "--steps",
    "4",
]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_asked_twice_it_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [*CALL, "--storage", str(tmp_path / "s.journal"), "--output", str(tmp_path / "r.json")]
    code, out, err = run(call, capsys)
    assert code == 0
    assert "6 trials trained, 0 reused" in out
    assert "sweep: 6/6" in err
    first = SweepResult.from_json(tmp_path / "r.json")
    assert [trial.lr for trial in first.trials[:3]] == [2**-8, 2**-6, 2**-4]
    code, out, _ = run(call, capsys)
    assert code == 0
    assert "0 trials trained, 6 reused" in out
    assert SweepResult.from_json(tmp_path / "r.json").trials == first.trials


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lrs", "fast"], "lrs='fast'"),
        (["--widths", "8,x"], "--widths='8,x': need whole numbers"),
        (["--parametrization", "ntk"], "ntk"),
        (["--engine", "gpu"], "engine='gpu' is not one of"),
        (["--storage", "/proc/none/s.journal"], "cannot use the storage /proc/none/s.journal"),
    ],
)
def test_a_wrong_word_is_one_line(
    change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*CALL, "--storage", str(tmp_path / "s.journal"), *change], capsys)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("thetaone: ")
    assert message in err.splitlines()[-1]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--output", "task.py"], "task.py holds something that is no result"),
        (["--output", "old.journal"], "old.journal holds something that is no result"),
        (["--output", "s.journal"], "--output and --storage are both s.journal"),
        (["--storage", "pipe"], "it is no regular file"),
        (["--storage", "/dev/full"], "it is no regular file"),
        (["--report", "new/folder", "--engine", "gpu"], "engine='gpu'"),
    ],
)
def test_what_is_there_is_not_written_over_and_nothing_is_left(
    change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("task.py").write_text("model = batches = loss = print\n")
    Path("old.journal").write_text('{"op_code":0}\n{"op_code":1}\n')
    before = names(tmp_path)
    code, out, err = run([*CALL, "--storage", "s.journal", *change], capsys)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert names(tmp_path) == before


def test_a_transfer_that_fails_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ["transfer", *CALL[1:], "--target", "32", "--report", "a/b"]
    code, _, err = run([*call, "--memory", "1KiB"], capsys)
    assert code == 2
    assert "1KiB" in err.splitlines()[-1]
    assert names(tmp_path) == set()


def test_a_disk_that_is_full_is_an_error_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [*CALL, "--storage", str(tmp_path / "s.journal"), "--output", "/dev/full"]
    code, _, err = run(call, capsys)
    assert code == 2
    assert "--output=/dev/full: cannot be written" in err.splitlines()[-1]
