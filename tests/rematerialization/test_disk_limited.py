"""A model that cannot train in a limited process trains there under its budget with the disk."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, sys, torch
from pathlib import Path
from tests.rematerialization.models import looping
from thetaone.records.rematerialization._schedule import DiskCost
from thetaone.rematerialization.disk._disk_tier import DiskTier
from thetaone.rematerialization.execution._rematerialize import rematerialize
torch.set_num_threads(1)
mode, place = sys.argv[1:]
cost = DiskCost(write_bytes_per_second=1e9, read_bytes_per_second=1e9)
model = looping(64, width=64)
x = torch.linspace(-1, 1, 4096 * 64).reshape(4096, 64)
if mode in ("probe", "ours"):
    small = rematerialize(looping(4, width=64), sample=x[:64], budget=0.8)
    small(x[:64]).sum().backward()  # torch's first checkpoint imports its compiler
if mode == "probe":
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in status if line.startswith("VmSize")))
    sys.exit()
if mode == "ours":
    tier = DiskTier(place, cost=cost)
    rematerialize(model, sample=x, budget="36MiB", disk=tier)
    written = []
    write, tier.write = tier.write, lambda data: [written.append(data.nbytes), write(data)][1]
model(x).square().mean().backward()
if mode == "ours":
    assert sum(written) > 0
grads = b"".join(p.grad.numpy().tobytes() for p in model.parameters())
print(hashlib.sha256(grads).hexdigest())
"""


def run(mode: str, place: Path, kib: int | None = None) -> subprocess.CompletedProcess[str]:
    """The program, in a shell that may have so much address space."""
    limit = "" if kib is None else f"ulimit -v {kib}; "
    return subprocess.run(
        ["bash", "-c", f'{limit}exec "$0" "$@"', sys.executable, "-c", PROGRAM, mode, str(place)],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PYTHONPATH": "src:.",
            "PATH": "/usr/bin:/bin",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_ARENA_MAX": "1",  # an arena a thread reserves address space that it never uses
        },
    )


@pytest.mark.slow
def test_a_limited_process_trains_with_the_disk(tmp_path: Path) -> None:
    """``ulimit -v``: what a small step of the same program takes, and 128 MiB."""
    probe = run("probe", tmp_path)
    assert probe.returncode == 0, probe.stderr
    limit = int(probe.stdout) + 128 * 1024
    plain = run("store-all", tmp_path, limit)
    assert plain.returncode != 0
    assert "memory" in plain.stderr
    reference, ours = run("store-all", tmp_path), run("ours", tmp_path, limit)
    assert reference.returncode == 0, reference.stderr
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout == reference.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from thetaone.rematerialization.disk._disk_tier import DiskTier
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
from thetaone.records.rematerialization._schedule import DiskCost, Region
from thetaone.rematerialization.disk._disk_tier import DiskTier
from thetaone.rematerialization.execution._rematerialize import rematerialize
from thetaone.rematerialization.planning._policies import judged
from thetaone.rematerialization.profiling._profile import profile

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
