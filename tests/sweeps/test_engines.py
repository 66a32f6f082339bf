import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import Batch, Dropping, Dying, Raising, Toy, adam, toy_grid

from thetaone.errors import InputError
from thetaone.records import EngineDecision, Trial, TrialSpec
from thetaone.sweeps import Work, run_local
from thetaone.sweeps._trials import train_trial
from thetaone.sweeps.engines import _agreement as agreement_module
from thetaone.sweeps.engines import _local as local_module
from thetaone.sweeps.engines import count_flops
from thetaone.sweeps.engines._work import Measured, measure, train


def run(
    task: Toy, specs: Sequence[TrialSpec], engine: str, n_processes: int = 2
) -> tuple[dict[TrialSpec, Trial], EngineDecision]:
    decisions: list[EngineDecision] = []
    trials = run_local(
        Work(task=task, make_optimizer=adam), specs, engine=engine, n_processes=n_processes,
        decided=decisions.append,
    )  # fmt: skip
    found = {trial.spec: trial for trial in trials}
    decision = decisions[-1]  # other programs on the cores may change it
    return found, decision


def test_every_engine_gives_the_same_losses() -> None:
    specs = toy_grid(widths=[4, 8], n_steps=20)
    serial, _ = run(Toy(), specs, "serial")
    processes, decision = run(Toy(), specs, "processes")
    assert decision.n_processes == 2
    assert set(serial) == set(processes) == set(specs)
    for spec in specs:
        assert processes[spec].losses == serial[spec].losses  # one thread each: to the bit
    for engine in ("stacked", "auto"):
        found, _ = run(Toy(), specs, engine)
        assert set(found) == set(specs)
        for spec in specs:
            assert found[spec].losses == pytest.approx(serial[spec].losses, rel=1e-4)


class Unreadable(Toy):
    """Toy whose batches of seed 1 end with an error after two steps."""

    def batches(self, seed: int) -> Iterator[Any]:
        for step, batch in enumerate(super().batches(seed)):
            if seed == 1 and step == 2:
                raise OSError("shard 7 is corrupt")
            yield batch


def test_a_stack_that_ends_early_says_why_and_leaves_the_others_alone() -> None:
    specs = [spec for spec in toy_grid(widths=[4], n_steps=5) if spec.seed in (0, 1)]
    assert {spec.seed for spec in specs} == {0, 1}
    alone, _ = run(Toy(), specs, "serial")
    reason = f"a stack of {len(specs)} trainings ended with OSError: shard 7 is corrupt"
    with pytest.warns(RuntimeWarning, match=reason):
        trials = list(train(Work(task=Unreadable(), make_optimizer=adam), specs))
    assert {trial.spec.seed for trial in trials if trial.status == "failed"} == {1}
    for trial in trials:
        if trial.spec.seed == 0:
            assert trial.losses == alone[trial.spec].losses


def test_auto_measures_and_says_so() -> None:
    _, decision = run(Toy(), toy_grid(widths=[4, 8], n_steps=20), "auto")
    assert {"width 4, one thread", "width 8, one thread", "width 8, 1 threads"} <= set(
        decision.seconds
    )
    assert "faster than one by one on 1 thread" in decision.reason
    assert decision.stacks.get(4, 1) in (1, 3)  # six trials on two workers


def test_one_by_one_gives_way_to_workers_when_it_is_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: a measurement that promises a step in no time, as on cores that were idle then."""
    monkeypatch.setattr(local_module, "_measure_threads", lambda work, specs: (8, 1e-9))
    specs = toy_grid(widths=[4, 8], n_steps=20)
    decisions: list[EngineDecision] = []
    work = Work(task=Toy(), make_optimizer=adam)
    trials = list(run_local(work, specs, n_processes=2, decided=decisions.append))
    assert [decision.engine for decision in decisions] == ["serial", "processes"]
    assert re.match(r"trial 1 of 12 took \d+\.\d× the time measured", decisions[1].reason)
    assert sorted(trial.spec for trial in trials) == sorted(specs)  # each once, the first one alone
    serial, _ = run(Toy(), specs, "serial")
    assert all(trial.losses == serial[trial.spec].losses for trial in trials)


@pytest.mark.parametrize("engine", ["auto", "processes"])
def test_a_daemonic_process_trains_one_by_one_and_says_why(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(multiprocessing.current_process())["_config"], "daemon", True)
    specs = toy_grid(widths=[4, 8], n_steps=20)
    trials, decision = run(Toy(), specs, engine)
    assert decision.engine == "serial"
    assert "a daemonic process, which may have no workers" in decision.reason
    assert set(trials) == set(specs)


def test_auto_does_not_measure_what_is_too_short_to_gain() -> None:
    specs = toy_grid(n_steps=3)
    assert run(Toy(), specs, "auto")[1].reason == "36 steps in all, too few to measure"
    assert run(Toy(), specs[:1], "auto")[1].reason == "a single trial"


class RarelyDoubled(Toy):
    """Draws from NumPy's global generator, to no effect in its first steps."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch) * (2 if np.random.rand() > 0.9 else 1)  # noqa: NPY002


class CoolingDown(Toy):
    """A module whose hook lowers the rate of its own optimizer, from step 5 on."""

    def adam(self, model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        steps, optimizer = itertools.count(), adam(model, width, lr)

        def cool(*_: Any) -> None:
            if next(steps) == 5:
                optimizer.param_groups[0]["lr"] /= 10

        model.register_forward_pre_hook(cool)
        return optimizer


def test_what_a_loss_does_beside_its_value_is_not_stacked() -> None:
    specs = [spec for spec in toy_grid(widths=[4], n_steps=10) if spec.seed == 0]
    cooling = CoolingDown()
    for work, reason in (
        (Work(task=RarelyDoubled(), make_optimizer=adam), "the loss draws from NumPy's or Python"),
        (Work(task=cooling, make_optimizer=cooling.adam), "changes an option of the optimizer"),
    ):
        with pytest.warns(RuntimeWarning, match=reason):
            trials = {trial.spec: trial for trial in train(work, specs)}
        assert {spec: t.losses for spec, t in trials.items()} == {
            spec: train_trial(work, spec).losses for spec in specs
        }


class GradientPenalty(Toy):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return super().loss(model, batch) + slope.square().mean()


def test_the_operations_of_a_loss_that_differentiates_are_counted() -> None:
    (spec,) = toy_grid(widths=[4], powers=[-6], seeds=[0])
    plain, penalized = (
        count_flops(Work(task=task, make_optimizer=adam), spec)
        for task in (Toy(), GradientPenalty())
    )
    assert penalized > 2 * plain  # a second forward pass, and its gradient's gradient


def test_dropout_cannot_be_stacked_and_auto_goes_on_without() -> None:
    specs = toy_grid(widths=[4], n_steps=30)
    with pytest.raises(InputError, match="engine='stacked' cannot train this task: vmap cannot"):
        run(Dropping(), specs, "stacked")
    found, decision = run(Dropping(), specs, "auto")
    assert decision.stacks == {}
    assert {trial.status for trial in found.values()} == {"finished"}


def test_a_stack_whose_losses_differ_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = toy_grid(widths=[4], n_steps=30)
    good = measure(Work(task=Toy(), make_optimizer=adam), specs)
    assert good.stack_seconds is not None
    monkeypatch.setattr(agreement_module, "LOSS_AGREEMENT", -1.0)
    bad = measure(Work(task=Toy(), make_optimizer=adam), specs)
    assert bad.stack_seconds is None
    assert "is not that of one model" in bad.why_not
    assert isinstance(bad, Measured)


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_an_exception_fails_its_trials_and_no_other(engine: str) -> None:
    specs = toy_grid(widths=[4, 8])
    found, _ = run(Raising(), specs, engine)
    for spec, trial in found.items():
        assert trial.status == ("failed" if spec.width == 8 else "finished")
    assert found[specs[-1]].reason == "RuntimeError: no room"


def test_an_exception_while_measuring_fails_its_trials_and_no_other() -> None:
    specs = toy_grid(widths=[4, 8])
    trials, decision = run(Raising(), specs, "auto")
    assert decision.engine == "processes"
    assert "raised while its speed was measured" in decision.reason
    for spec, trial in trials.items():
        assert trial.status == ("failed" if spec.width == 8 else "finished")
    with pytest.raises(InputError, match=r"cannot train this task: .*no room"):
        run(Raising(), specs, "stacked")


def test_a_killed_worker_fails_its_trial_and_no_other() -> None:
    specs = toy_grid(widths=[4, 8], seeds=[0])
    found, _ = run(Dying(), specs, "processes")
    assert set(found) == set(specs)
    for spec, trial in found.items():
        assert trial.status == ("failed" if spec.width == 8 else "finished")
    assert "died with signal 9 (Killed); perhaps out of memory" in found[specs[-1]].reason


def test_flops_are_those_of_the_matrix_products() -> None:
    work = Work(task=Toy(), make_optimizer=adam)
    batch, width = 16, 8
    forward = 2 * batch * (4 * width + width)
    # backward: both weight gradients, and the input gradient of the second layer alone
    backward = 2 * batch * (4 * width + width + width)
    assert count_flops(work, toy_grid(widths=[width])[0]) == forward + backward


def test_unknown_engine_and_no_workers() -> None:
    with pytest.raises(InputError, match="engine='gpu' is not one of auto, processes"):
        run(Toy(), toy_grid(), "gpu")
    with pytest.raises(InputError, match="n_processes=0: need at least 1"):
        run(Toy(), toy_grid(), "processes", n_processes=0)


FOREVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path[:0] = {path!r}
from toy import Slow, adam, toy_grid
from thetaone.sweeps.engines._local import run_local
from thetaone.sweeps import Work
specs = toy_grid(n_steps=100_000)
for trial in run_local(
    Work(task=Slow(), make_optimizer=adam), specs, engine="processes", n_processes=2,
    decided=lambda decision: print("training", flush=True),
):
    pass
"""


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_an_interrupted_or_killed_sweep(how: signal.Signals) -> None:
    code = FOREVER.format(path=[str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"training\n"
    deadline = time.monotonic() + 20
    while len(workers := children(parent.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2
    os.kill(parent.pid, how)
    try:
        assert parent.wait(timeout=20) != 0
    finally:
        parent.kill()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    parent.stdout.close()
