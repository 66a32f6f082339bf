import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Toy
from typer.testing import CliRunner

import thetaone as t1
from thetaone.cli.main import app
from thetaone.errors import InputError, MismatchError, TaskError, UnknownOptimizerError
from thetaone.records import ProgressEvent, SweepResult
from thetaone.sweeps.storage import OptunaStore

SMALL: dict[str, Any] = {
    "widths": [4, 8], "lrs": [2**-8, 2**-6, 2**-4], "seeds": [0, 1], "steps": 10,
    "engine": "serial", "optimizer": torch.optim.Adam,
}  # fmt: skip
OPEN = {name: value for name, value in SMALL.items() if name != "optimizer"}


def test_the_same_sweep_asked_twice_trains_nothing_the_second_time(tmp_path: Path) -> None:
    task = Toy(tmp_path / "built")
    journal = tmp_path / "sweep.journal"
    first = t1.sweep(task, **SMALL, storage=journal)
    n_built = task.n_built
    second = t1.sweep(task, **SMALL, storage=journal)
    assert (first.n_trained, first.n_reused) == (12, 0)
    assert (second.n_trained, second.n_reused, second.engine.engine) == (0, 12, "none")
    assert second.trials == first.trials
    assert second.optima == first.optima
    assert n_built >= 12
    assert task.n_built - n_built < 12  # the checks build a few, the trials none


def test_a_sweep_alone_reads_the_storage_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    known = OptunaStore.known

    def counted(self: OptunaStore, specs: Any) -> Any:
        reads.append(1)
        return known(self, specs)

    monkeypatch.setattr(OptunaStore, "known", counted)
    t1.sweep(Toy(), **SMALL, storage=tmp_path / "sweep.journal")
    assert len(reads) == 1


def test_a_larger_sweep_trains_only_what_is_new(tmp_path: Path) -> None:
    journal = tmp_path / "sweep.journal"
    t1.sweep(Toy(), **SMALL, storage=journal)
    wider = t1.sweep(Toy(), **{**SMALL, "widths": [4, 8, 16]}, storage=journal)
    assert (wider.n_trained, wider.n_reused) == (6, 12)
    longer = t1.sweep(Toy(), **{**SMALL, "steps": 11}, storage=journal)
    assert longer.n_reused == 0
    other = t1.sweep(Toy(), **{**SMALL, "optimizer": "SGD"}, storage=journal)
    assert other.n_reused == 0


def test_mup_and_sp_share_the_base_width_to_the_bit(tmp_path: Path) -> None:
    journal = tmp_path / "sweep.journal"
    mup = t1.sweep(Toy(), **SMALL, storage=journal)
    shared = t1.sweep(Toy(), **SMALL, parametrization="sp", storage=journal)
    alone = t1.sweep(Toy(), **SMALL, parametrization="sp")
    assert (shared.n_trained, shared.n_reused) == (6, 6)
    assert [t.losses for t in shared.trials] == [t.losses for t in alone.trials]
    assert {t.parametrization for t in shared.trials} == {"sp"}
    narrow = [t.losses for t in mup.trials if t.width == 4]
    wide = [t.losses for t in mup.trials if t.width == 8]
    assert narrow == [t.losses for t in alone.trials if t.width == 4]
    assert wide != [t.losses for t in alone.trials if t.width == 8]


def test_result_and_events() -> None:
    events: list[ProgressEvent] = []
    result = t1.sweep(Toy(), **SMALL, progress=events.append)
    assert [event.kind for event in events] == ["planned", "engine", *["trial"] * 12]
    assert [event.n_done for event in events] == [0, 0, *range(1, 13)]
    assert {event.n_total for event in events} == {12}
    assert result.widths == (4, 8)
    assert result.base_width == 4
    assert all(len(trial.losses) == 10 and trial.cost_flops > 0 for trial in result.trials)
    assert SweepResult.from_json(result.to_json()).to_json() == result.to_json()


def test_a_callable_parametrization_and_divergence() -> None:
    def wild(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=lr * 2**12)

    result = t1.sweep(Toy(), **{**OPEN, "steps": 60}, parametrization=wild)
    assert result.parametrization == "wild"
    statuses = {trial.lr: trial.status for trial in result.trials}
    assert statuses[2**-4] == "diverged"
    assert result.final_losses(8)[2**-4] == (float("inf"), float("inf"))


class NoLoss:
    model = Toy.model
    batches = Toy.batches


class VectorLoss(Toy):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().loss(model, batch)[None]


class SameWidth(Toy):
    def model(self, width: int) -> nn.Module:
        return super().model(4)


class NoBatches(Toy):
    def batches(self, seed: int) -> Any:
        return iter(())


@pytest.mark.parametrize("parametrization", ["mup", "sp"])
@pytest.mark.parametrize(
    ("task", "change", "kind", "message"),
    [
        (NoLoss(), {}, TaskError, "lacks a function 'loss'"),
        (VectorLoss(), {}, TaskError, r"shape \(1,\), not a scalar"),
        (SameWidth(), {}, MismatchError, "same shapes"),
        (NoBatches(), {}, TaskError, r"batches\(.\) of task NoBatches yields nothing"),
        (Toy(), {"optimizer": "Adamw"}, UnknownOptimizerError, "Adamw"),
        (Toy(), {"widths": None}, InputError, "widths is not given and task Toy has no default"),
        (Toy(), {"widths": []}, InputError, r"widths=\[\]: need at least one"),
        (Toy(), {"target": 0}, InputError, "width of target or base=0: need whole numbers from 1"),
        (Toy(), {"base_width": -2}, InputError, "width of target or base=-2: need whole numbers"),
        (Toy(), {"engine": "fast"}, InputError, "engine='fast' is not one of .*ray"),
        (Toy(), {"storage": 5}, InputError, "storage=5 of type int: pass the path of a file"),
        (Toy(), {"storage": True}, InputError, "storage=True of type bool: pass the path"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    task: object, change: dict[str, Any], kind: type[Exception], message: str, parametrization: str
) -> None:
    with pytest.raises(kind, match=message):
        t1.sweep(task, **{**SMALL, **change}, parametrization=parametrization)


FILE = """
import time, torch
def model(width): return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))
def batches(seed):
    g = torch.Generator().manual_seed(seed)
    while True: yield torch.randn(8, 4, generator=g)
def loss(model, batch):
    time.sleep(0.003)
    return (model(batch) - 1).square().mean()
"""
OPTIONS = [
    "--widths",
    "4,8",
    "--lrs",
    "2^-8:2^-4",
    "--seeds",
    "0,1",
    "--steps",
    "20",
    "--optimizer",
    "Adam",
]


@pytest.mark.skipif(sys.platform != "linux", reason="sends SIGKILL")
@pytest.mark.float32
def test_a_killed_sweep_resumes(tmp_path: Path) -> None:
    task, journal = tmp_path / "mine.py", tmp_path / "sweep.journal"
    task.write_text(FILE)
    arguments = ["sweep", str(task), *OPTIONS, "--storage", str(journal), "--engine", "processes"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = subprocess.Popen(
        [sys.executable, "-m", "thetaone.cli.main", *arguments], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("losses") >= 4):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    kept = journal.read_text().count('"losses"')
    assert 4 <= kept < 20
    options: dict[str, Any] = {
        "widths": [4, 8], "lrs": [2.0**p for p in range(-8, -3)], "seeds": [0, 1], "steps": 20,
    }  # fmt: skip
    resumed = t1.sweep(task, **options, optimizer="Adam", engine="processes", storage=journal)
    assert (resumed.n_reused, resumed.n_trained) == (kept, 20 - kept)
    fresh = t1.sweep(task, **options, optimizer="Adam", engine="processes")
    assert [t.losses for t in resumed.trials] == [t.losses for t in fresh.trials]


def test_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    arguments = [
        "sweep", str(tmp_path / "mine.py"), *OPTIONS, "--steps", "2", "--engine", "serial",
        "--storage", str(tmp_path / "sweep.journal"), "--output", str(tmp_path / "result.json"),
    ]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "mine: mup, Adam" in shown.stdout
    assert "20 trials trained, 0 reused" in shown.stdout
    assert SweepResult.from_json(tmp_path / "result.json").n_trained == 20


def test_what_mup_hangs_on_an_optimizer_does_not_forbid_stacks() -> None:
    result = t1.sweep(
        Toy(), widths=[8, 32], lrs=[2**-5, 2**-4], seeds=[0], steps=2, engine="stacked",
        n_processes=1, optimizer=torch.optim.Adam,
    )  # fmt: skip
    assert {trial.status for trial in result.trials} == {"finished"}


@pytest.mark.parametrize(
    "said", [{"weight_decay": 5.0}, {"roles": {"0.weight": "input"}}, {"decay": "independent"}]
)
def test_what_an_own_parametrization_would_not_see_is_refused(said: dict[str, Any]) -> None:
    (name,) = said
    with pytest.raises(InputError, match=f"^{name}: your own parametrization builds the optimizer"):
        t1.sweep(Toy(), **OPEN, parametrization=plain_sgd, **said)


def test_in_a_check_the_optimizer_says_what_is_expected_and_its_options_nothing() -> None:
    asked: dict[str, Any] = {"widths": [8, 16], "lr": 0.1, "seeds": 1, "max_seeds": 1}
    with pytest.raises(InputError, match=r"^weight_decay: your own parametrization"):
        t1.coordinate_check(Toy(), **asked, parametrization=plain_sgd, weight_decay=5.0)
    assert t1.coordinate_check(Toy(), **asked, parametrization=plain_sgd, optimizer="SGD").rows


def test_an_optimizer_beside_an_own_parametrization_is_the_one_that_it_builds() -> None:
    assert t1.sweep(Toy(), **OPEN, parametrization=plain_sgd, optimizer="SGD").trials
    with pytest.raises(InputError, match=r"^optimizer=Adam: your own parametrization builds SGD"):
        t1.sweep(Toy(), **SMALL, parametrization=plain_sgd)


def plain_sgd(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


@pytest.mark.parametrize("choice", [{"decay": "independent"}, {"depth_exponent": 0.5}])
def test_a_choice_of_mup_beside_plain_torch_is_refused(choice: dict[str, Any]) -> None:
    (name,) = choice
    with pytest.raises(InputError, match=f"^{name}: a choice of what µP prescribes"):
        t1.sweep(Toy(), **SMALL, parametrization="sp", **choice)
