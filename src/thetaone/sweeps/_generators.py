"""The global random generators of torch, NumPy and Python, seeded, noted and put back together."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GeneratorStates:
    """The state of every global generator at one moment."""

    torch_cpu: Tensor
    torch_cuda: tuple[Tensor, ...]
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> "GeneratorStates":
        """The states as they are; NumPy's global generator is legacy, and what people draw from."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ()
        numpy = np.random.get_state()  # noqa: NPY002
        return cls(torch.get_rng_state(), tuple(cuda), numpy, random.getstate())

    def restore(self) -> None:
        """Put the states back."""
        torch.set_rng_state(self.torch_cpu)
        if self.torch_cuda:
            torch.cuda.set_rng_state_all(list(self.torch_cuda))
        np.random.set_state(self.numpy)  # noqa: NPY002
        random.setstate(self.python)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside; leave them as they were."""
    before = GeneratorStates.now()
    try:
        _seed_torch(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        before.restore()


def _seed_torch(seed: int) -> None:
    """As ``torch.manual_seed``, which notes the whole call stack for a device that may come."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
