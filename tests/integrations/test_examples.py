"""The examples run as their first lines say, and the loss falls."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers, about loggers and versions


def run(name: str, *arguments: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(list(arguments))


def test_hugging_face_trainer(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    logs, watch = run(
        "hf_trainer", "--steps", "30", "--width", "64", "--base-width", "16", "--out", str(tmp_path)
    )
    losses = [entry["loss"] for entry in logs if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    assert {reading.status for reading in watch.readings} == {"ok"}


def test_lightning_module() -> None:
    pytest.importorskip("lightning")
    module, watch = run("lightning_module", "--steps", "30", "--width", "64", "--base-width", "16")
    assert sum(module.losses[-3:]) / 3 < module.losses[0] - 1
    assert {reading.status for reading in watch.readings} == {"ok"}
    rates = {group["lr"] for group in module.optimizers().param_groups}
    assert rates == {0.0}  # the schedule ends at zero in every group


@pytest.mark.skipif(os.name == "nt", reason="gloo by torchrun is tested on POSIX")
def test_fsdp2_on_two_processes() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(EXAMPLES / "fsdp2.py"), "--steps", "12"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rates [0.001953125, 0.0078125]" in done.stdout
    assert "faults 0" in done.stdout
    assert "resumed bit for bit: True" in done.stdout
    match = re.search(r"loss (\S+) -> (\S+);", done.stdout)
    assert match is not None
    assert float(match[2]) < float(match[1]) - 0.5


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("hf_trainer", "python examples/hf_trainer.py"),
        ("lightning_module", "python examples/lightning_module.py"),
        ("fsdp2", "torchrun --standalone --nproc-per-node 2 examples/fsdp2.py"),
    ],
)
def test_examples_say_how_to_run_them(name: str, command: str) -> None:
    assert command in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
