"""Trackers against stand-ins of their libraries that note every call."""

import contextlib
import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest

from thetaone.errors import MissingExtraError
from thetaone.integrations.trackers import MLflow, TensorBoard, WeightsAndBiases, run_name
from thetaone.records import EngineDecision, SweepResult, Trial, TrialSpec

FINISHED = Trial(
    spec=TrialSpec(
        width=32, lr=2**-6, seed=1, n_steps=2, rule="mup", axes=(("weight_decay", 0.1),)
    ),
    losses=(2.0, 1.0), status="finished", cost_flops=8.0, evaluation=1.5,
)  # fmt: skip
DIVERGED = Trial(
    spec=TrialSpec(width=32, lr=2.0, seed=0, n_steps=3, rule="sp", depth=2),
    losses=(2.0, math.inf), status="diverged",
)  # fmt: skip
RESULT = SweepResult(
    task="toy", parametrization="mup", optimizer="Adam", base_width=32, n_trained=2, n_reused=0,
    trials=(FINISHED, DIVERGED), engine=EngineDecision(engine="serial", reason=""), wall_seconds=1,
)  # fmt: skip

Calls = list[tuple[Any, ...]]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_names_tell_trials_apart() -> None:
    assert run_name(FINISHED) == "mup-width32-lr2^-6.00-seed1-weight_decay0.1"
    assert run_name(DIVERGED) == "sp-width32-depth2-lr2^1.00-seed0"


def test_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            calls.append(("open", folder))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append((name, value, step))

        def add_hparams(self, settings: Any, outcome: Any, run_name: str) -> None:
            calls.append((settings, outcome))

        def close(self) -> None:
            calls.append(("close",))

    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    TensorBoard("runs")(RESULT, FINISHED)
    settings = {
        "parametrization": "mup", "width": 32, "lr": 2**-6, "seed": 1, "steps": 2,
        "weight_decay": 0.1,
    }  # fmt: skip
    ended = {"result/final_loss": 1.0, "result/cost_flops": 8.0, "result/evaluation": 1.5}
    assert calls == [
        ("open", f"runs/{run_name(FINISHED)}"), ("loss", 2.0, 0), ("loss", 1.0, 1),
        (settings, ended), ("close",),
    ]  # fmt: skip


def test_weights_and_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []

    class Run:
        summary: ClassVar[dict[str, Any]] = {}

        def log(self, values: dict[str, float], step: int) -> None:
            calls.append((values, step))

        def finish(self, exit_code: int) -> None:
            calls.append(("finish", exit_code))

    def init(**options: Any) -> Run:
        calls.append((options["project"], options["group"], options["name"], options["entity"]))
        return Run()

    stand_in(monkeypatch, "wandb", init=init)
    WeightsAndBiases("mine", entity="team")(RESULT, DIVERGED)
    assert calls == [
        ("mine", "toy", run_name(DIVERGED), "team"), ({"loss": 2.0}, 0), ({"loss": math.inf}, 1),
        ("finish", 0),
    ]  # fmt: skip
    assert Run.summary == {"cost_flops": 0.0, "status": "diverged"}


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = []

    @contextlib.contextmanager
    def start_run(run_name: str) -> Iterator[None]:
        calls.append(("start", run_name))
        yield
        calls.append(("end",))

    def note(name: str) -> Any:
        return lambda *values, **named: calls.append((name, *values, *named.values()))

    names = ("set_tracking_uri", "set_experiment", "log_params", "set_tag", "log_metric")
    stand_in(
        monkeypatch, "mlflow", start_run=start_run, **{name: note(name) for name in names},
        log_metrics=note("log_metrics"),
    )  # fmt: skip
    MLflow("sweeps", "file:here")(RESULT, DIVERGED)
    assert calls[:3] == [
        ("set_tracking_uri", "file:here"), ("set_experiment", "sweeps"),
        ("start", run_name(DIVERGED)),
    ]  # fmt: skip
    assert ("set_tag", "status", "diverged") in calls
    metrics = [call for call in calls if call[0].startswith("log_metric")]
    assert metrics == [("log_metric", "loss", 2.0, 0), ("log_metrics", {"cost_flops": 0.0})]
    assert calls[-1] == ("end",)


@pytest.mark.parametrize(
    ("tracker", "module", "name"),
    [
        (TensorBoard, "torch.utils.tensorboard", "tensorboard"),
        (WeightsAndBiases, "wandb", "wandb"),
        (MLflow, "mlflow", "mlflow"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tracker: Any, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install '.*\[{name}\]'"):
        tracker("x")
