"""What the README prints is what runs: its task file, and its commands."""

import re
import shlex
from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.laws import verify_laws
from thetaone.records import TransferResult

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.search(r"^thetaone (transfer my_task\.py .*)$", README, re.MULTILINE)


def printed_task() -> str:
    return next(
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if "def loss" in block
    )


def run(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_example_is_the_printed_task() -> None:
    assert (ROOT / "examples" / "my_task.py").read_text(encoding="utf-8") == printed_task()


def test_make_demo_runs_the_printed_command() -> None:
    printed = re.search(r"^thetaone (transfer lm .*)$", README, re.MULTILINE)
    assert printed is not None
    assert f"/thetaone {printed[1]}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_printed_command_in_fewer_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COMMAND is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "thetaone.studies._job.verify_laws", lambda: verify_laws(["rematerialization"])
    )
    Path("my_task.py").write_text(printed_task(), encoding="utf-8")
    short = ["--steps", "8", "--seeds", "0", "--lrs", "2^-8:2^-4"]
    assert run([*shlex.split(COMMAND[1]), *short]) == 0
    result = TransferResult.from_json("out-mine/result.json")
    assert result.target_width == 1024
    assert result.memory is not None
    assert result.memory.account.within_budget


@pytest.mark.slow
def test_the_printed_command_finds_that_the_rate_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COMMAND is not None
    monkeypatch.chdir(tmp_path)
    Path("my_task.py").write_text(printed_task(), encoding="utf-8")
    assert run(shlex.split(COMMAND[1])) == 0
    result = TransferResult.from_json("out-mine/result.json")
    assert result.mup.drift is not None
    assert result.sp.drift is not None
    assert abs(result.mup.drift.octaves) <= 0.5
    assert result.sp.drift.octaves <= -1.0
    assert result.check_mup.passed
    assert not result.check_sp.passed
