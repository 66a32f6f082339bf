"""``thetaone sweep`` from the shell: results, resume, and what a wrong word says."""

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
