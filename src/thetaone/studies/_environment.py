"""What a result was measured on: versions, machine, threads. No host name, no user, no path."""

import platform

import torch

from thetaone.sweeps import available_cores, device_name
from thetaone.version import __version__


def environment() -> dict[str, str]:
    """Versions, processor, cores, threads and device, as text.

    Examples:
        >>> environment()["thetaone"] == __version__
        True
    """
    return {
        "thetaone": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(available_cores()),
        "threads": str(torch.get_num_threads()),
        "device": device_name(),
    }
