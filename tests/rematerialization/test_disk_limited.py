"""A model that cannot train in a limited process trains there under its budget with the disk."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys, torch, hashlib
from pathlib import Path
from thetaone.rematerialization.execute import rematerialize
from tests.rematerialization.models import looping
torch.set_num_threads(1)
mode, place = sys.argv[1:]
model = looping(64, width=64)
x = torch.linspace(-1, 1, 4096 * 64).reshape(4096, 64)
model(x[:8]).sum().backward()  # warm up
model.zero_grad()
if mode == "ours":
    rematerialize(model, sample=x, budget="50MiB", disk=place)
    schedule = model.blocks[0]._rematerialization[0].schedule
    assert schedule.disk_writes > 0, schedule
if mode != "reference":
    used = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmData" in l)
    limit = int(used.split()[1]) * 1024 + 160 * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
model(x).square().mean().backward()
grads = b"".join(p.grad.numpy().tobytes() for p in model.parameters())
print(hashlib.sha256(grads).hexdigest())
"""


def run(mode: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, mode, str(place)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": "src:.", "PATH": "", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )


@pytest.mark.slow
def test_a_limited_process_trains_with_the_disk(tmp_path: Path) -> None:
    plain = run("store-all", tmp_path)
    assert plain.returncode != 0
    assert "memory" in plain.stderr
    reference, ours = run("reference", tmp_path), run("ours", tmp_path)
    assert reference.returncode == 0, reference.stderr
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == reference.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from thetaone.rematerialization.disk_tier import DiskTier
tier = DiskTier(sys.argv[1])
spill = tier.write(memoryview(bytes(2**21)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=False, env={"PYTHONPATH": "src"}
    )
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


STEPS = """
import hashlib, os, signal, sys
import torch
from tests.rematerialization.models import looping
from thetaone.records.schedule import DiskCost, Region
from thetaone.rematerialization.disk_tier import DiskTier
from thetaone.rematerialization.execute import rematerialize
from thetaone.rematerialization.policies import judged
from thetaone.rematerialization.profiler import profile

mode, place = sys.argv[1:]
torch.manual_seed(0)
model = looping(6)
x = torch.linspace(-1, 1, 64).reshape(4, 16)
cost = DiskCost(write_bytes_per_second=1e9, read_bytes_per_second=1e9)
regions = [Region(start=0, stop=1), Region(start=1, stop=5, tier="disk")]
regions += [Region(start=1, stop=3, tier="disk"), Region(start=3, stop=4, tier="disk")]
schedule = judged(profile(model, x, repeats=1), regions, policy="by hand", disk=cost)
tier = DiskTier(place, cost=cost)
if mode != "plain":
    rematerialize(model, schedule, disk=tier)
digest = hashlib.sha256()
for step in range(50):
    model.zero_grad()
    loss = model(x).square().mean()
    if mode == "killed":
        assert tier.used_bytes > 0
        os.kill(os.getpid(), signal.SIGKILL)
    loss.backward()
    for p in model.parameters():
        digest.update(p.grad.numpy().tobytes())
print(digest.hexdigest())
"""


def start(mode: str, place: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STEPS, mode, str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": "src:.", "PATH": "", "OMP_NUM_THREADS": "1"},
    )


def test_a_step_killed_between_forward_and_backward_leaves_no_file(tmp_path: Path) -> None:
    process = start("killed", tmp_path)
    _, errors = process.communicate()
    assert process.returncode == -9, errors
    assert list(tmp_path.iterdir()) == []


def test_two_processes_share_a_directory(tmp_path: Path) -> None:
    together = [start(mode, tmp_path) for mode in ("disk", "disk", "plain")]
    outputs = [process.communicate() for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == 1  # bitwise the gradients of store-all
    assert list(tmp_path.iterdir()) == []
