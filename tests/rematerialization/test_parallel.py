"""Two gloo processes under DDP and FSDP2, and compiled blocks: bitwise as without."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.rematerialization.models import Looping, looping, planned
from tests.rematerialization.two_processes import WRAPPERS, step
from thetaone.rematerialization import rematerialize


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rematerialized first", "wrapped first"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_processes(wrapper: str, order: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.rematerialization.two_processes"]
    environment = {"PYTHONPATH": "src:.", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, str(rank), wrapper, order, f"file://{tmp_path}/store"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output == "24 tensors equal\n"


def compiled_before(model: Looping, schedule: Any) -> nn.Module:
    return rematerialize(compiled(model), schedule)


def compiled_after(model: Looping, schedule: Any) -> nn.Module:
    rematerialize(model, schedule)
    return compiled(model)


def compiled_whole(model: Looping, schedule: Any) -> nn.Module:
    return torch.compile(rematerialize(model, schedule), backend="aot_eager")  # pyright: ignore


def compiled(model: Looping) -> Looping:
    for block in model.blocks:
        block.compile(backend="aot_eager")
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
@pytest.mark.parametrize("how", [compiled_before, compiled_after, compiled_whole])
def test_compiled_blocks(how: Callable[[Looping, Any], nn.Module]) -> None:
    torch._dynamo.reset()
    model, x = looping(6, dropout=0.2), torch.linspace(-1, 1, 64).reshape(4, 16)
    schedule = planned(model, x)[1]
    ours = how(copy.deepcopy(model), schedule)
    for a, b in zip(step(model, x), step(ours, x), strict=True):
        assert torch.equal(a, b)
