"""Cores and device of this machine."""

import os

import torch


def available_cores() -> int:
    """Cores this process may run on [count]; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name() -> str:
    """The accelerator's name, or ``"cpu"`` when there is none.

    Examples:
        >>> isinstance(device_name(), str)
        True
    """
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return "cpu"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
