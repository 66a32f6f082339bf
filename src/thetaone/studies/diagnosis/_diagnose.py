"""``diagnose``: looks at versions, machine, disk and extras, and tries the main job in small."""

import importlib.metadata
import multiprocessing
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from thetaone.errors import first_line, install_command
from thetaone.records import Diagnosis, Finding, format_bytes, local_path
from thetaone.rematerialization import disk_cost
from thetaone.studies._memory_frontier import memory_frontier
from thetaone.studies._sweep import sweep
from thetaone.sweeps import available_cores, device_name
from thetaone.version import __version__

# what an extra is for; those of developers are left out
EXTRAS = {
    "ray": "sweeps on several machines", "postgres": "sweeps that share a database",
    "plot": "record.plot(), --plot", "lightning": "its callback",
    "transformers": "Hugging Face's Trainer", "trl": "its trainers", "peft": "adapters",
    "rl": "gymnasium's environments", "examples": "the bundled task digits",
    "optimizers": "Lion and others", "dataframe": "record.to_dataframe()",
    "tensorboard": "its tracker", "wandb": "its tracker", "mlflow": "its tracker",
}  # fmt: skip
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?[^;]*;.*extra\s*==\s*['\"]([\w-]+)['\"]")


def diagnose(folder: str | Path = ".") -> Diagnosis:
    """Whether the main job can run here, and what each further part would need.

    Args:
        folder: Where a job would write; its speed is measured.

    Returns:
        The findings; ``.passed`` is False when a sweep, a plan or the folder fails.
    """
    return Diagnosis(findings=(*_machine(), *_jobs(local_path(folder)), *_extras()))


def _machine() -> Iterator[Finding]:
    yield Finding(what="thetaone", value=__version__)
    yield Finding(what="python", value=f"{platform.python_version()}, {platform.system()}")
    yield Finding(what="torch", value=f"{torch.__version__}, {device_name()}")
    cores, threads = available_cores(), torch.get_num_threads()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    advice = ""
    if threads > cores:
        advice = f"set OMP_NUM_THREADS={cores}: more threads than cores wait for each other"
    elif busy > cores:
        advice = f"{busy:.1f} programs want these cores now: measured times will be long"
    yield Finding(what="cores, threads", value=f"{cores}, {threads}", advice=advice)


def _jobs(folder: Path) -> Iterator[Finding]:
    yield _tried(f"disk of {folder}", lambda: _disk(folder), "name a folder that can be written")
    with tempfile.TemporaryDirectory() as place:
        yield _tried("sweep", lambda: _small_sweep(Path(place)), "see the error; reinstall torch")
        yield _tried("memory plan", _small_plan, "see the error; reinstall torch")
    yield _tried(
        "worker processes", _worker, "pass --engine serial, which trains in this process alone"
    )


def _tried(what: str, job: Callable[[], str], advice: str) -> Finding:
    """A job's own words, or what it raised: that is what is asked here."""
    try:
        return Finding(what=what, value=job())
    except Exception as error:
        value = f"{type(error).__name__}: {first_line(error)}"
        return Finding(what=what, value=value, condition="fails", advice=advice)


def _disk(folder: Path) -> str:
    cost = disk_cost(folder)
    write, read = cost.write_bytes_per_second, cost.read_bytes_per_second
    return f"writes {format_bytes(write)}/s, reads {format_bytes(read)}/s"


def _small_sweep(folder: Path) -> str:
    result = sweep(
        "lm", widths=[16], lrs=[2.0**-8], seeds=[0], steps=2, engine="serial",
        storage=folder / "sweep.journal",
    )  # fmt: skip
    (trial,) = result.trials
    if trial.status != "finished":
        raise RuntimeError(f"a training of two steps ended as {trial.status}: {trial.reason}")
    return f"2 steps, loss {trial.final_loss:.2f}"


def _small_plan() -> str:
    plan = memory_frontier("lm", width=16, budget=0.8)
    return f"{len(plan.chain.stages)} blocks, least {format_bytes(plan.frontier.floor_bytes)}"


def _worker() -> str:
    worker = multiprocessing.get_context("spawn").Process(target=os.getpid)
    worker.start()
    worker.join(60)
    if worker.exitcode != 0:
        worker.kill()
        raise RuntimeError(f"a worker ended with exit code {worker.exitcode}")
    return "start and end"


def _extras() -> Iterator[Finding]:
    for extra, packages in _packages().items():
        absent = [name for name in packages if _version(name) is None]
        versions = ", ".join(f"{name} {_version(name)}" for name in packages if name not in absent)
        if absent:
            yield Finding(
                what=f"extra {extra}", value=f"without {', '.join(absent)}: {EXTRAS[extra]}",
                condition="absent", advice=install_command(extra),
            )  # fmt: skip
        else:
            yield Finding(what=f"extra {extra}", value=versions)


def _packages() -> dict[str, list[str]]:
    """Packages of each extra of a user's, as the installed distribution names them."""
    packages: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("thetaone") or ():
        found = _REQUIREMENT.match(line)
        if found and found[2] in EXTRAS:
            packages.setdefault(found[2], []).append(found[1])
    return packages


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
