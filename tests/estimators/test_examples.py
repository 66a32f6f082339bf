"""The examples run, learn something, and write their figure."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(arguments))


def test_logistic_regression(tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    accuracy = run("logistic_regression", "--steps", "60", "--out", str(out))
    assert accuracy["Pathwise"] > 0.93
    assert accuracy["MeasureValued"] > 0.93
    assert accuracy["LeaveOneOut"] > 0.9
    assert out.stat().st_size > 5000


def test_black_box_tuning(tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    before, after = run("black_box_tuning", "--steps", "30", "--out", str(out))
    assert after < before - 0.01
    assert out.stat().st_size > 5000


@pytest.mark.float32
def test_vae_digits(tmp_path: Path) -> None:
    out = tmp_path / "figure.png"
    curves = run("vae_digits", "--steps", "80", "--out", str(out))
    assert out.stat().st_size > 5000
    for curve in curves.values():
        start, end = sum(curve[:5]) / 5, sum(curve[-5:]) / 5
        assert end > start + 5


@pytest.mark.parametrize("name", ["logistic_regression", "black_box_tuning", "vae_digits"])
def test_examples_say_how_to_run_them(name: str) -> None:
    assert f"python examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
