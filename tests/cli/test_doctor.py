"""``thetaone doctor``: says what is there, and fails when the main job could not run."""

import json
from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.records import Diagnosis
from thetaone.studies.diagnosis import _diagnose as _doctor


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
        main(["doctor", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_sound_machine_can_run_the_main_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path), "--json") == 0
    diagnosis = Diagnosis.model_validate(json.loads(capsys.readouterr().out))
    found = {finding.what: finding for finding in diagnosis.findings}
    assert {"thetaone", "torch", "cores, threads", "sweep", "memory plan"} <= found.keys()
    assert "/s" in found[f"disk of {tmp_path}"].value
    assert found["worker processes"].condition == "ok"


def test_a_folder_that_cannot_be_written_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("_small_sweep", "_small_plan", "_worker"):
        monkeypatch.setattr(_doctor, name, lambda *_: "not tried")
    (tmp_path / "file").write_text("")
    assert run(str(tmp_path / "file")) == 1
    printed = capsys.readouterr().out
    assert "the main job cannot run: see ✗" in printed
    assert "name a folder that can be written" in printed


def test_an_extra_that_is_absent_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        'matplotlib>=3.9; extra == "plot"', 'pytest>=8; extra == "test"',
        'ray[default]>=2.40 ; extra == "ray"',
    ]  # fmt: skip
    monkeypatch.setattr("importlib.metadata.requires", lambda _: requirements)
    versions = {"matplotlib": None, "ray": "2.50"}
    monkeypatch.setattr(_doctor, "_version", versions.__getitem__)
    plot, ray = _doctor._extras()
    assert (plot.what, plot.condition) == ("extra plot", "absent")
    assert "[plot]'" in plot.advice
    assert (ray.condition, ray.value) == ("ok", "ray 2.50")


def test_a_command_that_brings_an_extra_fits_where_thetaone_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thetaone import errors

    module = tmp_path / "src" / "thetaone" / "errors.py"
    monkeypatch.setattr(errors, "__file__", str(module))
    assert errors.install_command("plot") == "pip install 'thetaone[plot]'"
    (tmp_path / "pyproject.toml").write_text("")
    assert errors.install_command("plot") == f"pip install '{tmp_path}[plot]'"
    monkeypatch.chdir(tmp_path)
    assert errors.install_command("plot") == "pip install '.[plot]'"
