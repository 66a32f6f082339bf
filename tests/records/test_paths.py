"""``~`` is the home folder wherever a path is taken: nobody replaces it in Python or in TOML."""

from pathlib import Path

import pytest

import thetaone as t1
from thetaone.cli.main import main
from thetaone.errors import InputError
from thetaone.records import PowerLaw, local_path
from thetaone.report import load_result, write_report
from thetaone.tasks import load_task

TASK = """from torch import nn, randn

def model(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))

def batches(seed):
    while True:
        yield randn(2, 4)

def loss(model, batch):
    return model(batch).square().mean()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(folder))
    (folder / "task.py").write_text(TASK, encoding="utf-8")
    return folder


def test_records_tasks_and_reports_go_home(home: Path) -> None:
    law = PowerLaw(exponent=1.0, stderr=0.0, interval=(1.0, 1.0), prefactor=1.0, n_points=2)
    law.to_json("~/law.json")
    assert PowerLaw.from_json("~/law.json") == law
    assert load_task("~/task.py").reference == str(home / "task.py")
    result = t1.sweep(
        "~/task.py", widths=[4, 8], lrs=[0.01], seeds=[0], steps=1, engine="serial",
        storage="~/runs/s.journal",
    )  # fmt: skip
    write_report(result, "~/out")
    assert load_result("~/out/result.json") == result
    with t1.DiskTier("~/out") as tier:
        assert tier.path == home / "out"
    assert (home / "runs" / "s.journal").is_file()
    assert list(Path().iterdir()) == []


def test_a_configuration_file_goes_home(home: Path) -> None:
    text = (
        'task = "~/task.py"\nwidths = [4, 8]\nlrs = [0.01]\nseeds = [0]\nsteps = 1\n'
        'engine = "serial"\nstorage = "~/s.journal"\nreport = "~/out"\noutput = "~/o.json"\n'
    )
    (home / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["sweep", "--config", "~/run.toml"])
    names = {"task.py", "run.toml", "s.journal", "out", "o.json"}
    assert {path.name for path in home.iterdir()} >= names
    assert list(Path().iterdir()) == []


def test_a_home_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"'~nobody-of-that-name/x': .*write the folder's whole name"
    ):
        local_path("~nobody-of-that-name/x")
