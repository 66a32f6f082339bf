import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from toy import Batch, Raising, Toy, adam, toy_grid

from thetaone.records import EngineDecision, Trial, TrialSpec
from thetaone.sweeps import Work
from thetaone.sweeps._trials import train_trial
from thetaone.sweeps.engines import run_ray

pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warns of its future defaults
def test_ray_trains_as_one_by_one_and_records_what_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # for Ray's workers
    decisions: list[EngineDecision] = []
    specs = toy_grid(widths=[4, 8], seeds=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work = Work(task=Raising(), make_optimizer=adam)
        trials = list(run_ray(work, specs, decided=decisions.append))
    assert decisions[0].engine == "ray"
    found = {trial.spec: trial for trial in trials}
    assert set(found) == set(specs)
    for spec, trial in found.items():
        if spec.width == 8:
            assert (trial.status, trial.reason) == ("failed", "RuntimeError: no room")
        else:
            assert trial.losses == train_trial(Work(task=Toy(), make_optimizer=adam), spec).losses


class DyingOnce(Toy):
    """The first worker that trains width 8 dies of it; the next one does not."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if next(model.parameters()).shape[0] == 8 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_costs_nothing_and_gpus_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ray

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    decisions: list[EngineDecision] = []
    specs = toy_grid(widths=[4, 8], seeds=[0])
    mark = tmp_path / "died"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=4, num_gpus=1, log_to_driver=False, include_dashboard=False)
        try:
            work = Work(task=DyingOnce(mark), make_optimizer=adam)
            trials = list(run_ray(work, specs, n_processes=2, decided=decisions.append))
            assert ray.is_initialized()  # the caller's cluster goes on
        finally:
            ray.shutdown()
    assert mark.exists()
    assert decisions[0].n_processes == 2
    assert "1 GPUs, 0.5 of one a trial" in decisions[0].reason
    alone = Work(task=Toy(), make_optimizer=adam)
    assert {trial.spec: trial.losses for trial in trials} == {
        spec: train_trial(alone, spec).losses for spec in specs
    }


class Waiting(Toy):
    """Trains on until the test lets it end, once it has said where it runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        import ray

        (self.folder / ray.get_runtime_context().get_node_id()).touch()
        deadline = time.monotonic() + 120
        while not (self.folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().loss(model, batch)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes of two cores on this machine; nobody has joined it."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def trained_as_alone(trials: Sequence[Trial], specs: Sequence[TrialSpec]) -> bool:
    alone = Work(task=Toy(), make_optimizer=adam)
    return {t.spec: t.losses for t in trials} == {s: train_trial(alone, s).losses for s in specs}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_node_that_is_lost_in_the_middle_costs_nothing(
    two_nodes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the cluster is the one that ``RAY_ADDRESS`` names, joined for the sweep alone."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    decisions: list[EngineDecision] = []
    specs = toy_grid(widths=[4, 8], seeds=[0, 1])
    work = Work(task=Waiting(tmp_path), make_optimizer=adam)

    def lose_a_node() -> None:
        (lost,) = two_nodes.worker_nodes
        deadline = time.monotonic() + 120
        while not (tmp_path / lost.node_id).exists() and time.monotonic() < deadline:
            time.sleep(0.05)  # until a trial is in its middle there
        two_nodes.remove_node(lost, allow_graceful=False)
        (tmp_path / "go").touch()

    losing = threading.Thread(target=lose_a_node)
    losing.start()
    trials = list(run_ray(work, specs, decided=decisions.append))
    losing.join()
    assert "the cluster has 4 cores" in decisions[0].reason  # this machine's own would be others
    assert len(list(tmp_path.iterdir())) == 3  # both nodes trained
    assert trained_as_alone(trials, specs)
    assert not ray.is_initialized()
