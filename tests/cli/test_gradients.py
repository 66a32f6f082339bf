"""``thetaone gradients`` prints the comparison, writes it, and refuses unknown problems."""

from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.records import EstimatorBakeoff


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
        main(["gradients", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_prints_a_table_with_a_recommendation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("grathwohl", "--repeats", "50", "--samples", "8") == 0
    text = capsys.readouterr().out
    assert "take " in text
    assert "DisARM" in text
    assert "flag: StraightThrough is biased" in text


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tucker", "--repeats", "50", "--samples", "8", "--json") == 0
    found = EstimatorBakeoff.from_json(capsys.readouterr().out)
    assert found.comparison("tucker").row("DisARM").variance > 0
    with pytest.raises(KeyError, match="no problem 'cos'; problems: tucker"):
        found.comparison("cos")


def test_report_is_one_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("tucker", "cos", "--repeats", "50", "--samples", "8", "--report", str(folder)) == 0
    assert f"report: {folder / 'index.html'}" in capsys.readouterr().out
    kept = EstimatorBakeoff.from_json(folder / "result.json")
    page = (folder / "index.html").read_text(encoding="utf-8")
    for comparison in kept.comparisons:
        assert f"{comparison.problem}: take {comparison.recommendation}" in page
        for row in comparison.rows:
            assert row.variance_words in page
            assert not row.variance_words.endswith("± 0")
    assert "biased: exact only for affine f" in page


def test_a_report_that_cannot_be_written_is_known_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert run("tucker", "--report", str(tmp_path / "file")) == 2
    error = capsys.readouterr().err
    assert "cannot write a report" in error
    assert error.count("\n") == 1


def test_unknown_problem_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nonsense") == 2
    error = capsys.readouterr().err
    assert "no problem 'nonsense'; choose from tucker" in error
    assert error.count("\n") == 1
