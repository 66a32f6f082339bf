"""``--config``: a TOML file fills what the command line leaves open; every run writes one."""

import contextlib
import json
import re
import tomllib
from pathlib import Path

import pytest

import thetaone as t1
from thetaone.cli._options import prescription_choices
from thetaone.cli.main import main

TASK = """
import torch
from torch import nn

def model(width):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(16, 8, generator=generator)

def loss(model, batch):
    return (model(batch) - batch.sum(1, keepdim=True)).square().mean()
"""
CALL = ["--widths", "4,8", "--target", "16", "--steps", "4", "--seeds", "0", "--lrs", "2^-8:2^-5",
        "--engine", "serial"]  # fmt: skip
RECIPE = ["--weight-decay", "0.3", "--beta2", "0.9", "--clip", "0.5", "--accumulate", "2",
          "--schedule", "warmup-linear:0.25", "--option", "eps=1e-6"]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    (tmp_path / "task.py").write_text(TASK)


def run(*arguments: str) -> None:
    with contextlib.suppress(SystemExit):
        main(list(arguments))


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "result.json").read_text())["target"]["losses"]


def test_a_run_can_be_done_again_from_its_file(tmp_path: Path) -> None:
    task = str(tmp_path / "task.py")
    run("transfer", task, *CALL, *RECIPE, "--report", str(tmp_path / "a"))
    written = tomllib.loads((tmp_path / "a" / "run.toml").read_text())
    assert written["clip"] == 0.5
    assert written["option"] == {"weight_decay": 0.3, "eps": 1e-6, "betas": [0.9, 0.9]}
    run("transfer", "--config", str(tmp_path / "a" / "run.toml"), "--report", str(tmp_path / "b"))
    assert losses(tmp_path / "b") == losses(tmp_path / "a")
    mine = tmp_path / "c" / "run.toml"
    mine.parent.mkdir()
    mine.write_text("# mine\nsteps = 9\n")
    with pytest.warns(RuntimeWarning, match=r"was written by hand: kept as run\.by-hand\.toml"):
        run("transfer", task, *CALL, "--report", str(tmp_path / "c"))
    assert losses(tmp_path / "c") != losses(tmp_path / "a")
    assert mine.with_name("run.by-hand.toml").read_text() == "# mine\nsteps = 9\n"
    assert tomllib.loads(mine.read_text())["task"] == task


def test_choices_of_the_prescription_are_written_and_read_again(tmp_path: Path) -> None:
    task = str(tmp_path / "task.py")
    choices = {"decay": "independent", "depth_exponent": None, "roles": {"2.weight": "output"}}
    chosen = [w for name, value in choices.items() for w in ("--choice", f"{name}={value}")]
    run("transfer", task, *CALL, "--weight-decay", "0.3", *chosen, "--report", str(tmp_path / "a"))
    written = tomllib.loads((tmp_path / "a" / "run.toml").read_text())
    assert written["choice"] == {**choices, "depth_exponent": "None"}
    run("transfer", "--config", str(tmp_path / "a" / "run.toml"), "--report", str(tmp_path / "b"))
    again = tomllib.loads((tmp_path / "b" / "run.toml").read_text())
    assert again["choice"] == written["choice"]
    assert losses(tmp_path / "b") == losses(tmp_path / "a")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("frozen", "write name=value, e.g. --choice frozen=skip"),
        ("colour=red", "none of that name"),
    ],
)
def test_a_choice_that_is_none_is_refused(
    choice: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("sweep", str(tmp_path / "task.py"), "--choice", choice)
    assert message in capsys.readouterr().err


def test_the_command_line_goes_first(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('widths = "4,8"\nsteps = 3\n')
    config = ["--config", str(tmp_path / "run.toml")]
    run("transfer", str(tmp_path / "task.py"), *CALL[2:], *config, "--report", str(tmp_path / "a"))
    assert len(losses(tmp_path / "a")) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scheduler = 'cosine'", "scheduler is no option of transfer"),
        ("widths = ", "cannot be read"),
        ("clip = 0", "clip=0"),
        ("schedule = 'cosine'", "schedule='cosine': choose constant"),
        ("precision = 'fp8'", "precision='fp8'"),
        ("accumulate = 3", "accumulate=3: tensors of a batch have"),
        ("depths = [1, 2]", "takes no depth"),
    ],
)
def test_a_bad_file_is_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["transfer", str(tmp_path / "task.py"), *CALL, "--config", str(tmp_path / "run.toml")])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("thetaone: ")
    assert message in last


def test_one_file_does_for_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of transfer says what sweep does not take; sweep goes on and names it."""
    text = "widths = [4, 8]\nlrs = [0.01, 0.02, 0.04]\nweight-decay = 0.1\n"
    text += 'seeds = [0]\nsteps = 3\nmemory = "1GiB"\n'
    (tmp_path / "run.toml").write_text(text)
    config = ["--config", str(tmp_path / "run.toml"), "--engine", "serial"]
    run("sweep", str(tmp_path / "task.py"), *config, "--storage", str(tmp_path / "s.journal"))
    told = capsys.readouterr()
    assert "sweep takes no memory; other commands do" in told.err
    assert "6 trials trained" in told.out
    (tmp_path / "run.toml").write_text(text + "cliip = 1.0\n")
    run("sweep", str(tmp_path / "task.py"), *config, "--storage", str(tmp_path / "s.journal"))
    assert "cliip is no option of sweep" in capsys.readouterr().err


SWEEP = ["sweep", "--widths", "4", "--lrs", "2^-8:2^-6", "--seeds", "0", "--steps", "3",
         "--engine", "serial"]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("maximize=false", {}),
        ("amsgrad=no", {}),
        ("amsgrad=Yes", {"amsgrad": True}),
        ("eps=2^-10", {"eps": 2**-10}),
    ],
)
def test_words_and_powers_mean_what_they_say(said: str, meant, tmp_path: Path) -> None:
    task, output = tmp_path / "task.py", tmp_path / "result.json"
    run(
        *SWEEP,
        str(task),
        "--option",
        said,
        "--storage",
        str(tmp_path / "j"),
        "--output",
        str(output),
    )
    asked = t1.SweepResult.from_json(output)
    right = t1.sweep(task, widths=[4], lrs=[2**-8, 2**-7, 2**-6], seeds=[0], steps=3,
                     engine="serial", **meant)  # fmt: skip
    assert [trial.losses for trial in asked.trials] == [trial.losses for trial in right.trials]


def test_a_choice_is_false_in_any_spelling() -> None:
    for word in ("false", "False", "no"):
        assert prescription_choices([f"decay_vectors={word}"]) == {"decay_vectors": False}
    assert prescription_choices(["roles={'a^b': 'output'}"]) == {"roles": {"a^b": "output"}}


@pytest.mark.parametrize(
    "text",
    [
        'axis = ["weight_decay=0,0.5", "beta2=0.9"]',
        "[axis]\nweight_decay = [0, 0.5]\nbeta2 = 0.9",
        "\ufeffaxis = ['weight_decay=0,0.5', 'beta2=0.9']",
    ],
)
def test_axes_stand_in_a_file_as_they_are_typed(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    output = tmp_path / "result.json"
    run(*SWEEP, str(tmp_path / "task.py"), "--config", str(tmp_path / "run.toml"), "--storage",
        str(tmp_path / "j"), "--output", str(output))  # fmt: skip
    axes = t1.SweepResult.from_json(output).axes
    assert axes == {"weight_decay": (0.0, 0.5), "beta2": (0.9,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip = true", "clip = true: a number or a text is needed"),
        ("weight-decay = 1\nweight_decay = 2", "weight_decay stands there twice"),
        ("jsn = true", "jsn is no option of sweep; .* Did you mean 'json'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*SWEEP, str(tmp_path / "task.py"), "--config", str(tmp_path / "run.toml")])
    assert re.search(message, capsys.readouterr().err)
