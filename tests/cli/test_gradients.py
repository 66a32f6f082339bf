"""``thetaone gradients`` prints the comparison, writes it, and refuses unknown problems."""

import json
from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.records.estimates import EstimatorComparison


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["gradients", *arguments])
    return int(stop.value.code or 0)


def test_prints_a_table_with_a_recommendation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grathwohl", "--repeats", "50", "--samples", "8") == 0
    text = capsys.readouterr().out
    assert "take " in text
    assert "DisARM" in text
    assert "flag: StraightThrough is biased" in text


def test_json_and_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ("--repeats", "50", "--samples", "8", "--json", "--report", str(tmp_path))
    assert run("tucker", *arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["problem"] == "tucker"
    kept = EstimatorComparison.from_json(tmp_path / "gradients-tucker.json")
    assert kept.row("DisARM").variance >= 0
    assert (tmp_path / "gradients-tucker.png").stat().st_size > 5000


def test_unknown_problem_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nonsense") == 2
    error = capsys.readouterr().err
    assert "no problem 'nonsense'; choose from tucker" in error
    assert error.count("\n") == 1
