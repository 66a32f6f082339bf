import os

import pytest
import torch

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
