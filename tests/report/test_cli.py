"""``thetaone report`` redraws a saved result, and says in one line why it cannot."""

from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.records import TransferResult


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"\d") as stopped:
        main(["report", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_redraws_a_saved_result(
    result: TransferResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result.to_json(tmp_path / "result.json")
    assert run(str(tmp_path / "result.json"), "--out", str(tmp_path / "out")) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert "plotly" in (tmp_path / "out" / "index.html").read_text().lower()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "is not a TransferResult record"), ("nonsense", "is not JSON"), (None, "cannot read")],
)
def test_a_file_that_is_no_result_is_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert run(str(path), "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
