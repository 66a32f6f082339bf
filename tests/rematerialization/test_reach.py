"""State in every place that a block can reach is replayed and left right, or refused by name."""

import contextvars
import copy
from typing import Any

import torch
from torch import nn

from tests.rematerialization.test_purity import Stateful, rematerialized, steps

COUNT = contextvars.ContextVar("count", default=0)


class InContext(Stateful):
    """Counts in a context variable."""

    def advance(self, x: torch.Tensor) -> Any:
        COUNT.set(COUNT.get() + 1)
        return COUNT.get()


def test_context_variables_that_blocks_set_are_theirs_in_every_region() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(*[InContext() for _ in range(6)])
    ours = rematerialized(copy.deepcopy(plain))
    assert COUNT.get() == 0
    runs = [contextvars.copy_context() for _ in range(2)]
    expected, gradients = (
        run.run(steps, one) for run, one in zip(runs, (plain, ours), strict=True)
    )
    assert all(map(torch.equal, expected, gradients))
    assert [run[COUNT] for run in runs] == [24, 24]
