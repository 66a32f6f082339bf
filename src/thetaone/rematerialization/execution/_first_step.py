"""Holds what the first real step keeps against what was measured for its plan.

A profile can be true and a step need more: an attribute that was set since, an autocast inside a
block, what an argument holds. Each stage is counted once, when its tape is first written, by the
tracker that measured it, and again after others changed what its block holds; steps beside these
cost nothing. A stage that keeps more is *outgrown*: the next step is planned anew with its bytes.
"""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import _StopRecomputationError

from thetaone.records import format_bytes
from thetaone.rematerialization.accounting import StorageTracker
from thetaone.rematerialization.blocks import sharded
from thetaone.rematerialization.profiling import cast_bytes

TOLERANCE = 0.01  # of a tape: what a block sets up at its first forward is a few bytes more

AGAIN = 8  # times that all stages are counted anew; where each step changes them, then one in turn


class FirstStep:
    """The tapes that the first step has yet to write.

    Args:
        tapes: What was measured for each stage [bytes]; empty if nothing was.

    Attributes:
        outgrown: Stages that keep more, and what they keep [bytes].
    """

    def __init__(self, tapes: Sequence[int]) -> None:
        self.tapes = dict(enumerate(tapes))
        self.expected = dict(self.tapes)
        self.outgrown: dict[int, int] = {}
        self.changes = Counter[int]()

    def count_again(self, stages: Iterable[int]) -> None:
        """Hold stages against their tapes once more: something changed what their blocks hold."""
        for stage in filter(self.tapes.__contains__, stages):
            self.changes[stage] += 1
            changes = self.changes[stage]
            if changes <= AGAIN or changes % len(self.tapes) == stage:
                self.expected[stage] = self.tapes[stage]

    def run(self, stage: int, name: str, block: nn.Module, call: Callable[[], Any]) -> Any:
        """Run a stage that writes its tape; the first time with an eye on its bytes.

        Warns:
            RuntimeWarning: It keeps more than was measured; once for all stages.
        """
        expected = self.expected.pop(stage, None)
        if expected is None or not torch.is_grad_enabled() or not _countable(block):
            return call()
        expected += cast_bytes([block])  # an autocast holds them until its end: beside every tape
        tracker, output = StorageTracker(), None
        try:
            with tracker:
                output = call()
        except _StopRecomputationError as stopped:
            traceback.clear_frames(stopped.__traceback__)  # what the block was about to return
            self._compare(stage, name, expected, tracker.live_bytes)
            raise
        self._compare(stage, name, expected, tracker.live_bytes)
        return output

    def _compare(self, stage: int, name: str, expected: int, kept: int) -> None:
        if kept <= (1 + TOLERANCE) * expected:
            return
        said = bool(self.outgrown)
        self.outgrown[stage] = max(kept, self.outgrown.get(stage, 0))
        if said:
            return
        warnings.warn(
            f"{name} keeps {format_bytes(kept)} for its backward where {format_bytes(expected)} "
            "were measured: this step takes more than its plan says, and may take more than the "
            "budget. Something that decides it changed since (an attribute, an autocast inside the "
            "block, what an argument holds) or a forward hook keeps tensors. A model that has a "
            "budget plans the next step anew; for a schedule of your own, plan again with a sample "
            "like this step",
            RuntimeWarning,
            stacklevel=2,
        )


def _countable(block: nn.Module) -> bool:
    """Whether a tracker sees what a block keeps; not in a compiler's code, nor gathered shards."""
    return not sharded() and not any(
        isinstance(one, torch._dynamo.OptimizedModule) or one._compiled_call_impl is not None
        for one in block.modules()
    )
