import os
import sys
import warnings

import pytest
from toy import Raising, Toy, adam, toy_grid

from thetaone.records import EngineDecision
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
