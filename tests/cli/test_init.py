"""``thetaone init``: every task file runs as it is written, and nothing is overwritten."""

import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

import thetaone as t1
from thetaone.cli._init import KINDS
from thetaone.cli.main import main
from thetaone.rematerialization import profile
from thetaone.tasks import load_task


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["class.py"], "write e.g. thetaone init mlp class.py"),
        (["mlp", "folder"], "folder is a folder: name a file in it, e.g. folder/task.py"),
        (["mlp", ""], ". is a folder: name a file in it, e.g. task.py"),
        (["mlp", "../absent/mine.py"], "../absent/mine.py: its folder does not exist"),
        (["mlp", "notes.txt"], "notes.txt: a task's file ends with .py; name it e.g. notes.py"),
        (["mlp", "x" * 300 + ".py"], "no name of a file"),
    ],
)
def test_a_name_that_is_no_new_python_file_is_refused(
    words: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert run(*words) == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


@pytest.mark.parametrize("name", ["my task.py", "class.py", "a;b.py", "-x.py", 'a"""\\n.py'])
def test_an_odd_name_can_be_typed_as_the_next_steps_print_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("mlp", "--", name) == 0
    (check,) = [line for line in capsys.readouterr().out.splitlines() if "thetaone check" in line]
    _, _, typed = shlex.split(check)
    assert load_task(typed).defaults["widths"]
    assert Path(name).read_text(encoding="utf-8")
