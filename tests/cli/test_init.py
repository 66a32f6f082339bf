"""``thetaone init``: every task file runs as it is written, and nothing is overwritten."""

from importlib.util import find_spec
from pathlib import Path

import pytest

import thetaone as t1
from thetaone.cli._init import KINDS
from thetaone.cli.main import main
from thetaone.rematerialization import profile
from thetaone.tasks import load_task


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"\d") as stopped:
        main(["init", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_task_is_swept_checked_and_evaluated(kind: str, tmp_path: Path) -> None:
    if kind == "huggingface" and find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    file = tmp_path / "mine.py"
    assert run(kind, str(file)) == 0
    task = load_task(str(file))
    assert task.evaluate is not None
    assert task.defaults.keys() == {"widths", "lrs", "seeds", "steps"}
    result = t1.sweep(
        str(file), widths=[16, 32], lrs=[2**-8], seeds=[0], steps=1, engine="serial",
        storage=tmp_path / "s.journal",
    )  # fmt: skip
    assert {trial.status for trial in result.trials} == {"finished"}
    assert task.evaluate(task.model(16)) >= 0
    assert str(file) in file.read_text(encoding="utf-8")  # the commands in it are its own


@pytest.mark.parametrize("kind", ["transformer", "huggingface"])
def test_a_written_transformer_has_a_chain_to_plan(kind: str, tmp_path: Path) -> None:
    if kind == "huggingface" and find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    assert run(kind, str(tmp_path / "mine.py")) == 0
    task = load_task(str(tmp_path / "mine.py"))
    chain = profile(task.model(16, 3), next(task.batches(0)), forward=task.loss)
    assert len(chain.stages) == 3


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "task.py"
    file.write_text("mine", encoding="utf-8")
    assert run("mlp", str(file)) == 2
    assert "is there already: name another file" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "mine"


def test_an_unknown_kind_is_answered_with_the_one_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tranformer", str(tmp_path / "task.py")) == 2
    assert "Did you mean 'transformer'?" in capsys.readouterr().err
    assert not (tmp_path / "task.py").exists()
