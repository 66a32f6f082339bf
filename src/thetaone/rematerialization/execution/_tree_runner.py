"""Runs consecutive blocks by a nested schedule: regions of non-reentrant checkpointing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from thetaone.errors import ScheduleError
from thetaone.rematerialization.blocks import (
    Ambient,
    Call,
    Copies,
    Draws,
    Mark,
    Moment,
    Watch,
    follow,
    label,
    output_tensors,
    with_tensors,
    written,
)
from thetaone.rematerialization.disk import Boundary, DiskTier, Recover, boundary_of, ticket_for
from thetaone.rematerialization.execution._first_step import FirstStep
from thetaone.rematerialization.execution._prefetch import Prefetcher
from thetaone.rematerialization.planning import Node
from thetaone.rematerialization.profiling import dropped_tapes

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class StageCall:
    """One call of a block in the chain.

    Attributes:
        name: Qualified name of the block.
        block: The module.
        link: How its call follows from the one before, read from JSON; None is the same call.
    """

    name: str
    block: nn.Module
    link: Any = None


@dataclass(frozen=True)
class Place(Mark):
    """The place of a tensor in a block's output."""

    index: int


@dataclass
class Execution:
    """One execution of a section in the forward.

    Attributes:
        ambient: Ambient state when it began.
        draws: Whether it draws from the global generators.
        outputs: What each stage returned, with a ``Place`` for each tensor.
        calls: How each stage was called.
    """

    ambient: Ambient
    draws: Draws
    outputs: dict[int, Any] = field(default_factory=dict[int, Any])
    calls: dict[int, Call] = field(default_factory=dict[int, Call])


class TreeRunner:
    """Runs nodes of a schedule's tree.

    Args:
        stages: The calls of the chain.
        moving: Names of large buffers that the blocks change.
        disk: Where the inputs of regions with ``tier="disk"`` wait.
        tapes: What each stage was measured to keep [bytes]; empty if nothing was.
    """

    def __init__(
        self,
        stages: Sequence[StageCall],
        moving: Sequence[str],
        disk: DiskTier | None,
        tapes: Sequence[int] = (),
    ) -> None:
        self.stages = list(stages)
        self.first_step = FirstStep(tapes)
        self.copies = Copies(moving)
        self.transfers = Prefetcher(disk)
        self.watches: dict[int, Watch] = {}
        self.inside = 0  # blocks that are running: a block within a block is part of it

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy: nothing of a step under way."""
        fresh = {"transfers": Prefetcher(self.transfers.disk), "watches": {}, "inside": 0}
        return {**self.__dict__, **fresh}

    def watch(self, stage: int) -> Watch:
        """The watch of a stage's block."""
        one = self.stages[stage]
        if id(one.block) not in self.watches:
            self.watches[id(one.block)] = Watch(one.name, one.block)
        return self.watches[id(one.block)]

    def watches_of(self, node: Node) -> list[Watch]:
        """The watches of a node's blocks, each once."""
        watches = map(self.watch, range(node.start, node.stop))
        return list({id(watch): watch for watch in watches}.values())

    def is_to_count(self, stage: int) -> bool:
        """Whether a stage that is kept is held against its tape: never yet, or changed since."""
        if stage in self.first_step.expected:
            self.watch(stage).now()  # for the next step to compare with
            return True
        if stage not in self.first_step.tapes:
            return False
        watch = self.watch(stage)
        known = watch.known
        if watch.now() is known:
            return False
        self.first_step.count_again((stage,))
        return stage in self.first_step.expected

    def start(self, node: Node, flowing: Tensors, call: Call, execution: Execution) -> Tensors:
        """The first execution of a node, in the forward."""
        try:
            tensors = self.run(node, flowing, call, execution=execution)
            execution.draws.settle(self.watches_of(node))
            return tensors
        finally:
            self.transfers.finish()

    def run(
        self,
        node: Node,
        flowing: Tensors,
        call: Call,
        *,
        execution: Execution,
        taping: bool = True,
        again: bool = False,
        boundary: Boundary | None = None,
    ) -> Tensors:
        """Run the items of a node; without ``taping`` nothing of them is kept.

        ``call`` is that of the node's first stage, ``boundary`` the node's own input on disk.
        ``recover`` computes the input of an item again, from the input of the region before it.
        """
        recover: Recover | None = None
        at = node.start
        for item in node.items:
            stage = item if isinstance(item, int) else item.start
            if stage != at:
                at, call = stage, self.call_of(stage, at, call)
            if isinstance(item, int):
                noted = None if again else execution
                flowing = self.run_block(item, flowing, call, noted, taping=taping)
                recover = None
                continue
            region = Region(self, item, call, execution, flowing[0].device, again=again)
            inputs, source = flowing, flowing[0].detach if len(flowing) == 1 else None
            if self.transfers.disk is not None and item.tier == "disk":
                kept = self._kept(node, item, flowing, boundary, recover) if taping else None
                inputs, source = (ticket_for(kept),), kept.fetch if kept is not None else None
                region.first.append(flowing)
            del flowing
            recover = partial(region.recover, source) if taping and source else None
            flowing = checkpoint(  # pyright: ignore[reportAssignmentType]
                region,
                *inputs,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=region.moment.contexts,
            )
        return flowing

    def run_block(
        self,
        stage: int,
        flowing: Tensors,
        call: Call,
        execution: Execution | None,
        *,
        taping: bool = False,
    ) -> Tensors:
        """Run one block; ``execution`` notes what it returned, for the model's own loop."""
        one = self.stages[stage]
        if taping and execution is not None:
            self.is_to_count(stage)
        if taping and self.first_step.expected:
            output = self.run_taping(stage, call, *flowing)
        else:
            output = self.run_as_written(stage, call, *flowing)
        if isinstance(output, torch.Tensor):
            tensors = [output]
        else:
            tensors = output_tensors(output, where=label(one.block, one.name))
        if execution is not None:
            places = [Place(index) for index in range(len(tensors))]
            execution.outputs[stage] = with_tensors(output, tensors, places)
            execution.calls[stage] = call
        self.transfers.settle()  # a write may last as long as the block that reads what is written
        return tuple(tensors)

    def run_as_written(self, stage: int, call: Call, *flowing: torch.Tensor) -> Any:
        """Call a block as its own class does; a block within it is part of it."""
        block = self.stages[stage].block
        self.inside += 1
        try:
            return call.run(partial(written(block).__call__, block), flowing)
        finally:
            self.inside -= 1

    def run_within(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call what needs nothing of a schedule; a block within it is part of it."""
        self.inside += 1
        try:
            return function(*args, **kwargs)
        finally:
            self.inside -= 1

    def run_taping(self, stage: int, call: Call, *flowing: torch.Tensor) -> Any:
        """Call a block that writes its tape."""
        run = partial(self.run_as_written, stage, call, *flowing)
        if not self.first_step.expected:
            return run()
        return self.first_step.run(stage, self.stages[stage].name, self.stages[stage].block, run)

    def call_of(self, stage: int, before: int, call: Call) -> Call:
        """How a stage is called, from the call of one before it."""
        for place in range(before + 1, stage + 1):
            description = self.stages[place].link
            call = call if description is None else follow(description, call)
        return call

    def _kept(
        self,
        node: Node,
        item: Node,
        flowing: Tensors,
        boundary: Boundary | None,
        recover: Recover | None,
    ) -> Boundary:
        """The input of a region on disk."""
        if len(flowing) != 1:
            raise ScheduleError(
                f"{len(flowing)} tensors flow into {self.stages[item.start].name}: only a single "
                "one can wait on disk; plan without disk=…"
            )
        (only,) = flowing
        inherited = boundary if item.start == node.start else None
        return inherited or self.transfers.spill(only, recover)


class Region:
    """A region of the schedule: its first run writes no tape, every later one does."""

    def __init__(
        self,
        runner: TreeRunner,
        item: Node,
        call: Call,
        execution: Execution,
        device: torch.device,
        *,
        again: bool,
    ) -> None:
        self.runner, self.item, self.call, self.execution = runner, item, call, execution
        self.again, self.ran = again, False
        self.first: list[Tensors] = []  # the input of a region on disk, until it has run
        # blocks may set context variables; flags are read once for all regions
        self.moment = Moment(
            runner.watches_of(item),
            device,
            call,
            runner.copies,
            execution.ambient.here(),
            draws=execution.draws,
        )

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        """Run the region from its inputs, or from the ticket of an input on disk."""
        if self.ran:
            if self.runner.transfers.disk is None:
                return self.moment.ambient.run(self._replay, inputs)
            with self.runner.transfers.replaying():
                return self.moment.ambient.run(self._replay, inputs)
        self.ran = True
        if self.moment.moved:
            self.runner.first_step.count_again(range(self.item.start, self.item.stop))
        run, options = self.runner.run, {"execution": self.execution, "again": self.again}
        if self.first:
            return run(self.item, self.first.pop(), self.call, taping=False, **options)
        return run(self.item, inputs, self.call, taping=False, **options)

    def _replay(self, inputs: Tensors) -> Tensors:
        run, call, execution = self.runner.run, self.call.again(), self.execution
        if self.runner.transfers.disk is None or self.item.tier != "disk":
            return run(self.item, inputs, call, execution=execution, again=True)
        boundary = boundary_of(inputs[0])
        self.runner.transfers.prefetch_before(boundary, self.item.spare)
        return run(
            self.item,
            (boundary.fetch(),),
            call,
            execution=execution,
            again=True,
            boundary=boundary,
        )

    def recover(self, source: Recover) -> torch.Tensor:
        """The region's output, computed again without a tape."""
        return self.moment.ambient.run(self._recover, source)

    def _recover(self, source: Recover) -> torch.Tensor:
        with self.moment.contexts()[1], torch.enable_grad(), dropped_tapes():
            flowing: Tensors = (source(),)
            start, call = self.item.start, self.call.again()
            for stage in range(start, self.item.stop):
                call = self.runner.call_of(stage, max(start, stage - 1), call)
                flowing = self.runner.run_block(stage, flowing, call, None)
        return flowing[0].detach()


def read_links(links: Sequence[str], length: int) -> list[Any]:
    """Descriptions of how calls follow from each other, as a schedule holds them."""
    if not links:
        return [None] * length
    return [json.loads(one) if one else None for one in links]
