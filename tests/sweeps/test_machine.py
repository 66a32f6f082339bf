import os

import pytest
import torch
from torch import nn
from toy import Toy

import thetaone as t1
from thetaone.errors import InputError
from thetaone.studies._environment import environment
from thetaone.sweeps import available_cores, device_name


def test_cores_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cores() == 7
    assert environment()["cores"] == "7"


def test_the_device_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps")
    )
    assert device_name() == environment()["device"] == "mps"
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert device_name() == "cpu"


class Looks(Toy):
    """A model that asks for the value of a weight while it is built."""

    def model(self, width: int) -> nn.Module:
        model = super().model(width)
        assert next(model.parameters()).sum().item() < 1e6
        return model


def test_a_model_beyond_the_memory_is_refused_or_said_not_to_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("thetaone.sweeps.identity._check._memory_bytes", lambda: 1000)
    grid = {"widths": [8, 64], "lrs": [2**-6, 2**-5, 2**-4], "steps": 2, "engine": "serial"}
    with pytest.raises(InputError, match=r"width=64: .* take 1,540 bytes, more than the 1,000"):
        t1.sweep(Toy(), **grid)  # pyright: ignore[reportArgumentType]
    with pytest.warns(UserWarning, match=r"width=\d+: .* could not be counted .* meta device"):
        t1.sweep(Looks(), **grid)  # pyright: ignore[reportArgumentType]
