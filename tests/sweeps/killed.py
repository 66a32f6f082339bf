"""Jobs that are killed at random moments: a program of one thread, so that forking is safe.

``python killed.py JOB FOLDER KILLS SEED`` prints as JSON the job's answer uninterrupted, its answer
after so many kills, and the bytes that each of these left. For JOB a storage's path or URL: what
became of pairs of sweeps on it of which one was killed.
"""

import functools
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages.journal import JournalFileBackend
from torch import Tensor, nn
from toy import Batch, Toy, adam, toy_grid

import thetaone as t1
from thetaone.records import Trial, TrialSpec
from thetaone.sweeps import Work, open_store, run_trials
from thetaone.sweeps._trials import train_trial

Answer = dict[str, Any]

PAIR = toy_grid(n_steps=30)
SHARE = 0.4  # of the job's seconds: each kill comes within them after a start


class Slow(Toy):
    """Long enough for a kill to land in a step."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        time.sleep(0.001)
        return super().loss(model, batch)


def transfer(folder: Path) -> Answer:
    """A transfer with a checkpoint after every step; all that it decides and trains."""
    result = t1.transfer(
        Slow(), widths=[4, 8], target=16, lrs=[2.0**p for p in (-8, -7, -6, -5)], seeds=[0, 1],
        steps=20, target_steps=120, report=folder / "out", engine="serial", checkpoint_minutes=0,
    )  # fmt: skip
    weights = (folder / "out" / "model.safetensors").read_bytes()
    return {
        "rate": result.chosen_lr, "target": result.target.losses,
        "weights": hashlib.sha256(weights).hexdigest(),
        "trials": named({t.spec: t for t in [*result.mup.trials, *result.sp.trials]}),
        "checks": [str(check.passed) for check in (result.check_mup, result.check_sp)],
    }  # fmt: skip


def stacked(folder: Path) -> Answer:
    """A sweep of stacks; each member's losses."""
    specs = toy_grid(widths=[4, 6, 8, 12], n_steps=60)
    store = open_store(folder / "sweep.journal", experiment="stacked")
    work = Work(task=Slow(), make_optimizer=adam)
    runs = run_trials(work, specs, store=store, engine="stacked", n_processes=2)
    return {"trials": named(runs.trials)}


def named(trials: dict[TrialSpec, Trial]) -> dict[str, tuple[float, ...]]:
    return {str(spec): trial.losses for spec, trial in sorted(trials.items())}


def kill_and_resume(
    job: Callable[[Path], Answer], folder: Path, n_kills: int, draw: random.Random, seconds: float
) -> list[int]:
    """Start a job until it was killed so many times; the bytes that each kill left.

    One that ends before its kill is begun anew, in an empty folder.
    """
    left: list[int] = []
    while len(left) < n_kills:
        folder.mkdir(exist_ok=True)
        child = fork(lambda: job(folder))
        time.sleep(draw.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            left.append(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))
        else:
            assert os.waitstatus_to_exitcode(status) == 0
            shutil.rmtree(folder)
    return left


def silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def share(storage: str, experiment: str, told: Path) -> None:
    """One of the two sweeps on a storage; writes what it ends with."""
    work = Work(task=Slow(), make_optimizer=adam)
    store = open_store(storage, experiment=experiment)
    runs = run_trials(work, PAIR, store=store, engine="serial")
    told.write_text(json.dumps(named(runs.trials)))


def fork(job: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    silence()
    job()
    os._exit(0)


def outlive(storage: str, folder: Path, n_kills: int, draw: random.Random) -> list[Any]:
    """Pairs of sweeps of which one is killed; what each survivor has, how often each was kept."""
    work, rounds = Work(task=Slow(), make_optimizer=adam), []
    started = time.monotonic()
    expected = {str(spec): train_trial(work, spec).losses for spec in PAIR}
    seconds = time.monotonic() - started
    while len(rounds) < n_kills:
        name, told = f"pair {len(rounds)}", folder / "told.json"
        told.unlink(missing_ok=True)
        jobs = [functools.partial(share, storage, name, to) for to in (folder / "lost.json", told)]
        victim, survivor = map(fork, jobs)
        time.sleep(draw.uniform(0, seconds))
        os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        assert os.waitpid(survivor, 0)[1] == 0
        resumed = {spec: tuple(losses) for spec, losses in json.loads(told.read_text()).items()}
        rounds.append({"same": resumed == expected, "hit": os.WIFSIGNALED(status), "name": name})
    return [{**one, "kept": n_kept(storage, one["name"])} for one in rounds]


def n_kept(storage: str, experiment: str) -> int:
    """Trials in the storage under an experiment, each as often as it was trained to its end."""
    if "://" in storage:
        backend = optuna.storages.RDBStorage(storage.replace("sql://", "sql+psycopg://"))
    else:
        backend = optuna.storages.JournalStorage(JournalFileBackend(storage))
    studies = [s for s in backend.get_all_studies() if s.study_name.startswith(f"{experiment},")]
    return sum(backend.get_n_trials(study._study_id) for study in studies)


def main(name: str, place: str, n_kills: str, seed: str) -> None:
    torch.set_num_threads(1)
    folder, n, draw = Path(place), int(n_kills), random.Random(int(seed))
    if name not in JOBS:
        sys.stdout.write(json.dumps(outlive(name, folder, n, draw)))
        return
    whole, killed, job = folder / "whole", folder / "killed", JOBS[name]
    whole.mkdir()
    started = time.monotonic()
    expected = job(whole)
    seconds = SHARE * (time.monotonic() - started)
    left = kill_and_resume(job, killed, n, draw, seconds)
    sys.stdout.write(json.dumps({"expected": expected, "resumed": job(killed), "left": left}))


JOBS = {"transfer": transfer, "stacked": stacked}

if __name__ == "__main__":
    main(*sys.argv[1:])
