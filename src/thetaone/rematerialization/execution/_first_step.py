"""Holds what the first real step keeps against what was measured for its plan.

A profile can be true and a step need more: an attribute that was set since, an autocast inside a
block, what an argument holds. Each stage is counted once, when its tape is first written, by the
tracker that measured it, and again after others changed what its block holds; steps beside these
cost nothing.
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

AGAIN = 8  # times that a stage is counted anew: a step's number set on a block changes every time


class FirstStep:
    """The tapes that the first step has yet to write.

    Args:
        tapes: What was measured for each stage [bytes]; empty if nothing was.
    """

    def __init__(self, tapes: Sequence[int]) -> None:
        self.tapes = dict(enumerate(tapes))
        self.expected = dict(self.tapes)
        self.again = Counter[int]()

    def watches(self, stage: int) -> bool:
        """Whether a stage would be counted again."""
        return stage in self.tapes and self.again[stage] < AGAIN

    def count_again(self, stages: Iterable[int]) -> None:
        """Hold stages against their tapes once more: something changed what their blocks hold."""
        for stage in filter(self.watches, stages):
            self.again[stage] += 1
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
            self._compare(name, expected, tracker.live_bytes)
            raise
        self._compare(name, expected, tracker.live_bytes)
        return output

    def _compare(self, name: str, expected: int, kept: int) -> None:
        if kept <= (1 + TOLERANCE) * expected:
            return
        self.expected.clear()
        warnings.warn(
            f"{name} keeps {format_bytes(kept)} for its backward where {format_bytes(expected)} "
            "were measured: this step takes more than its plan says, and may take more than the "
            "budget. Something that decides it changed since (an attribute, an autocast inside the "
            "block, what an argument holds) or a forward hook keeps tensors: call rematerialize "
            "again with a sample like this step",
            RuntimeWarning,
            stacklevel=2,
        )


def _countable(block: nn.Module) -> bool:
    """Whether a tracker sees what a block keeps; not in a compiler's code, nor gathered shards."""
    return not sharded() and not any(
        isinstance(one, torch._dynamo.OptimizedModule) or one._compiled_call_impl is not None
        for one in block.modules()
    )
