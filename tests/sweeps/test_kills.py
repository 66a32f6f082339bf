"""Twenty kills at random moments change nothing; sweeps that share a storage outlive each other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import toy_grid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, sends SIGKILL, reads /proc"),
]
KILLS = 20


def told(job: str, folder: Path) -> Any:
    """What the program of killings says."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), *filter(None, sys.path)])
    program = [sys.executable, "-W", "ignore", str(here / "killed.py")]
    done = subprocess.run(
        [*program, job, str(folder), str(KILLS), "0"],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def require_stages(left: list[int]) -> None:
    assert len(left) == KILLS
    assert len(set(left)) > 3  # they hit different stages


def test_a_transfer_that_is_killed_ends_with_the_uninterrupted_result(tmp_path: Path) -> None:
    answers = told("transfer", tmp_path)
    require_stages(answers["left"])
    assert answers["resumed"] == answers["expected"]


def test_a_sweep_of_stacks_that_is_killed_ends_with_the_uninterrupted_result(
    tmp_path: Path,
) -> None:
    answers = told("stacked", tmp_path)
    require_stages(answers["left"])
    expected, resumed = answers["expected"]["trials"], answers["resumed"]["trials"]
    assert expected.keys() == resumed.keys()
    for spec, losses in expected.items():
        assert resumed[spec] == pytest.approx(losses, rel=1e-4)  # stacks of other members


def test_of_two_sweeps_one_is_killed_and_the_other_ends_with_every_trial(
    storage: str, tmp_path: Path
) -> None:
    rounds = told(storage, tmp_path)
    assert len(rounds) == KILLS
    assert sum(one["hit"] for one in rounds) > KILLS / 2
    assert all(one["same"] for one in rounds)
    assert [one["kept"] for one in rounds] == [len(toy_grid())] * KILLS  # each trained once
