"""The page of targets is what its program writes from the history; misses are shown as missed."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "targets.py"


@pytest.fixture
def targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("targets", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_programs(targets: ModuleType) -> None:
    assert targets.PAGE.read_text("utf-8") == targets.page(), "run: python benchmarks/targets.py"


def written(folder: Path, results: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    lines = [
        {"case": case, "figures": figures, "machine": "m", "torch": "2", "commit": "c"}
        for case, figures in results
    ]
    (folder / "speed.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


@pytest.mark.parametrize(
    ("at_least", "limit", "expected"),
    [
        (True, 2.0, "**1.5**, missed in 1 of 2"),
        (True, 1.5, "**1.5**, reached of 2"),
        (False, 2.9, "**3**, missed in 1 of 2"),
        (False, 3.0, "**3**, reached of 2"),
    ],
)
def test_a_row_shows_the_worst_of_the_newest_results(
    targets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_least: bool,
    limit: float, expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(targets, "HISTORY", tmp_path)
    old, new, other = {"times": 9.0}, {"times": 1.5}, {"times": 3.0}
    written(tmp_path, [({"k": 1}, old), ({"k": 1}, new), ({"k": 2}, other)])
    machines: list[str] = []
    row = targets.row(targets.Target("speed", "speed", "times", limit, at_least=at_least), machines)
    assert expected in row
    assert machines == ["m, torch 2"]


def test_a_figure_of_another_case_does_not_count(
    targets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "HISTORY", tmp_path)
    written(tmp_path, [({"who": "peer"}, {"times": {"a": -3, "b": 1}})])
    nested = targets.Target("t", "speed", "times.*", 2, absolute=True)
    assert "**3**, missed in 1 of 1" in targets.row(nested, [])
    ours = targets.Target("t", "speed", "times.*", 2, case={"who": "thetaone"})
    assert "not measured" in targets.row(ours, [])
