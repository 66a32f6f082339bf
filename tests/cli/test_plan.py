"""``thetaone plan``: the source problem, and the account of a whole training step."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from thetaone.cli.main import main
from thetaone.errors import InputError
from thetaone.records import MemoryPlan
from thetaone.rematerialization import plan
from thetaone.studies import memory_frontier
from thetaone.tasks import load_task


def test_the_source_problem(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["plan", "--length", "10", "--keep-every", "5", "--forward", "20ns", "--load", "10ns"])
    rows = {
        line.strip().split("   ")[0]: line
        for line in capsys.readouterr().out.splitlines()
        if "kept" in line or "every" in line
    }
    periodic = rows["every 5th, loaded for every layer"]
    assert re.search(r"\b2\b.*20 forwards.*10 loads.*500 ns.*50 ns", periodic)
    optimal = rows["optimal with 2 kept, loaded for every layer"]
    # six recomputations: t(10, 3) = 15 advances of a step (the input is the third slot), less the
    # nine of its first sweep
    assert re.search(r"\b2\b.* 6 forwards.*10 loads.*220 ns", optimal)


@pytest.mark.parametrize(
    ("name", "bytes_of"),
    [
        ("SGD", lambda n, tensors: 0),
        ("RMSprop", lambda n, tensors: 4 * n + 4 * tensors),
        ("AdamW", lambda n, tensors: 8 * n + 4 * tensors),  # two moments, a step count a tensor
        ("Lion", lambda n, tensors: 4 * n),
    ],
)
def test_the_account_has_the_optimizers_own_state(
    name: str, bytes_of: Callable[[int, int], int]
) -> None:
    found = memory_frontier("digits", width=16, optimizer=name)
    parameters = list(load_task("digits").model(16).parameters())
    n = sum(p.numel() for p in parameters)
    assert found.gradient_bytes == 4 * n
    assert found.optimizer_bytes == bytes_of(n, len(parameters))


def test_an_optimizer_that_cannot_step_the_model_is_named() -> None:
    with pytest.raises(InputError, match=r"optimizer=Muon cannot step this model: .* another one"):
        memory_frontier("digits", width=16, optimizer="Muon")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["plan", *map(str, arguments)])
    return capsys.readouterr().out


def test_a_plan_goes_out_as_json_comes_in_and_is_planned_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    place, picture = tmp_path / "plan.json", tmp_path / "plan.svg"
    depth = ("--width", 16, "--depth", 4)
    out = run(capsys, "lm", *depth, "--budget", "0.5", "--disk", tmp_path, "--output", place)
    assert "over memory and disk" in out
    assert run(capsys, "--from", place, "--plot", picture) == out
    assert "optimal schedules" in picture.read_text()
    again = run(capsys, "--from", place, "--budget", "0.9")
    first, second = MemoryPlan.from_json(place), out
    assert first.schedule is not None
    assert str(plan(first.chain, 0.9, disk=first.schedule.disk)) in again
    assert again != second


def test_a_hundred_thousand_layers_are_planned_in_closed_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """n(n − 1)/2 a segment of n; t(L, s) = r·L − C(s + r, r − 1) with r = 3 for s = 101 slots."""
    out = run(capsys, "--length", 100_000, "--keep-every", 1000)
    every = 100 * (1000 * 999 // 2)
    assert math.comb(101 + 2, 2) < 100_000 <= math.comb(101 + 3, 3)
    best = 3 * 100_000 - math.comb(101 + 3, 2) - 99_999
    assert f"{every} forwards" in out
    assert f"{best} forwards" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["lm", "--width", "16", "--budget", "1"],
            "no schedule fits budget=1: the",
        ),
        (["lm", "--width", "16", "--budget", "0.5", "--disk", "/nowhere"], "is not a directory"),
        (
            ["--from", "p.json", "--disk", "."],
            "--from holds its own measurement: ",
        ),
        (["--length", "10", "task.py"], "leave out 'task.py'"),
        (["--length", "10", "--budget", "1GiB"], "leave out --budget"),
        (["lm", "--width", "16", "--forward", "1s"], "leave out --forward"),
        (["lm", "--width", "-4"], "width=-4: need 1 or more"),
        (["lm", "--width", "16", "--depth", "0"], "depth=0: need 1 or more"),
        (["lm", "--width", "16", "--budget", "1e400"], "budget='1e400': more than 1 EiB"),
        (["lm", "--width", "16", "--budget", "150%"], "budget='150%': a fraction"),
        (["lm", "--width", "16", "--budget", "2K"], "fits budget=2K: the cheapest possible"),
        (["lm", "--width", "16", "--budget", "1%"], "fits budget=1%: the cheapest possible"),
        (["--length", "5", "--forward", "1e400s"], "--forward='1e400s' is not a finite time"),
        (["--from", "/nowhere.json"], "cannot read MemoryPlan from /nowhere.json"),
        (["--length", "4", "--output", "/nowhere/plan.json"], "its folder does not exist"),
    ],
)
def test_bad_plans_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["plan", *arguments])
    assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["plan", "lm", "--width", "16", "--plot", "plan.nope"])
    assert "--plot=plan.nope: cannot be written" in capsys.readouterr().err
