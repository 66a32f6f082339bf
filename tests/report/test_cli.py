"""``thetaone report`` redraws a saved result, and says in one line why it cannot."""

from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.records import TransferResult


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
        main(["report", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_redraws_a_saved_result(
    result: TransferResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result.to_json(tmp_path / "result.json")
    page = tmp_path / "out" / "index.html"
    assert run(str(tmp_path / "result.json"), "--report", str(page.parent)) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.stat().st_size < 600_000
    assert "plotly" not in page.read_text(encoding="utf-8").lower()


def test_a_page_to_explore_carries_plotly(result: TransferResult, tmp_path: Path) -> None:
    result.to_json(tmp_path / "result.json")
    out = tmp_path / "out"
    assert run(str(tmp_path / "result.json"), "--report", str(out), "--interactive") == 0
    assert "Plotly.react" in (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a result that has a page"),
        ('{"record": "Stage"}', "record 'Stage'; these have one: TransferResult"),
        ("nonsense", "is not JSON"),
        (None, "cannot read a result"),
    ],
)
def test_a_file_that_is_no_result_is_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert run(str(path), "--report", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
