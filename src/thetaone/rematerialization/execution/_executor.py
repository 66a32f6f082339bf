"""Runs a chain of blocks by a schedule: nested regions of non-reentrant checkpointing."""

import operator
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.checkpoint import _StopRecomputationError, checkpoint

from thetaone.errors import RecomputationError, ScheduleError
from thetaone.records import Schedule
from thetaone.rematerialization.blocks import (
    ENTRY,
    Blocks,
    Call,
    Copies,
    Handed,
    Moment,
    Passage,
    activation_of,
    conditions,
    differences,
    dropped_tapes,
    like_output,
    plain,
    random_state,
    same_state,
    specialize,
    take_activation,
    unhooked,
    untouched,
    written,
)
from thetaone.rematerialization.disk import Boundary, DiskTier, Recover, boundary_of, ticket_for
from thetaone.rematerialization.planning import Node, tree
from thetaone.rematerialization.profiling import Subject, note_subject

Replan = Callable[[list[Subject]], Schedule]


class Executor:
    """The blocks of a model and the schedule by which they run.

    In a model whose own forward loops over its blocks, the first block runs the whole nested tree
    and the others hand on what they are given. With ``alone`` each runs by itself, and the loop may
    do what it likes between them.

    Args:
        found: The blocks.
        schedule: Its length is their number.
        replan: Makes a schedule for an input of another size; None refuses such an input.
        disk: Where the inputs of regions with ``tier="disk"`` wait.
        alone: No region spans two blocks.
    """

    def __init__(
        self,
        found: Blocks,
        schedule: Schedule,
        replan: Replan | None = None,
        disk: DiskTier | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self.names = found.names
        self.blocks = list(found.modules)
        self.calls = [written(block).__call__ for block in self.blocks]
        self.schedule = schedule
        self.root = tree(schedule)
        self.alone = alone
        self.again = {region.start for region in schedule.regions}
        self.replan = replan
        self.planned: dict[tuple[str, ...], Node] = {}
        self.outputs: list[Any] = [None] * len(self.blocks)
        self.copies = Copies(schedule.moving)
        self.disk = disk
        self.writing: list[Boundary] = []
        self.on_disk: list[weakref.ref[Boundary]] = []  # in the order of the forward

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: nothing of a step under way."""
        outputs: list[Any] = [None] * len(self.blocks)
        return {**self.__dict__, "outputs": outputs, "writing": [], "on_disk": []}

    def forward(self, activation: torch.Tensor, call: Call) -> torch.Tensor:
        """The whole chain."""
        try:
            return self._run(self._tree_for(activation, call), activation, call)
        finally:
            self.writing.clear()  # what an exception left behind

    def require_same(self, container: nn.Sequential) -> None:
        """Refuse to run blocks that are no longer those of the container.

        Raises:
            ScheduleError: Blocks were added, removed or replaced.
        """
        now = list(container._modules.values())
        if len(now) != len(self.blocks) or not all(map(operator.is_, now, self.blocks)):
            raise ScheduleError(
                f"the blocks {self.names[0]} … {self.names[-1]} were added to, removed or replaced "
                "after rematerialize: call it again"
            )

    def subjects(self, activation: torch.Tensor, call: Call) -> list[Subject]:
        """The blocks as they would be called from here, to be profiled."""
        noted: dict[str, Subject] = {}
        found: list[Subject] = []
        with dropped_tapes():
            for index, (name, block) in enumerate(zip(self.names, self.blocks, strict=True)):
                run = self._original(index)
                found.append(note_subject(noted, name, block, run, activation, call))
                activation = activation_of(call.run(run, activation), where=name)
        return found

    def call_block(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What happens when the model's loop calls a block."""
        activation, call = take_activation(args, kwargs, Handed)
        if self.alone:
            return self._run_alone(index, activation, call)
        passage = (
            self._start(activation, call) if index == 0 else self._expect(index, activation, call)
        )
        last = index == len(self.blocks) - 1
        return like_output(self.outputs[index], passage.output if last else Handed(passage))

    def _run_alone(self, index: int, activation: torch.Tensor, call: Call) -> Any:
        """One block, recomputed or not, whatever the others are called with."""
        if index == 0 and (changed := self._changed(activation, call)):
            self._refuse(changed)
        original = self._original(index)
        if index not in self.again:
            return call.run(original, activation)
        moment = self._moment(index, index + 1, activation, call)
        return checkpoint(
            _Alone(original, call),
            activation,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=moment.contexts,
        )

    def _run(
        self,
        node: Node,
        activation: torch.Tensor,
        call: Call,
        *,
        taping: bool = True,
        boundary: Boundary | None = None,
    ) -> torch.Tensor:
        """Run the items of a node; without ``taping`` nothing of them is kept.

        ``boundary`` is the node's own input on disk. ``recover`` computes the input of an item
        again, from the input of the region before it.
        """
        recover: Recover | None = None
        for item in node.items:
            if isinstance(item, int):
                activation, recover = self._run_block(item, activation, call), None
                continue
            moment = self._moment(item.start, item.stop, activation, call)
            kept = None
            if self.disk is not None and item.tier == "disk":
                if taping:
                    inherited = boundary if item.start == node.start else None
                    kept = inherited or self._spill(activation, recover)
                source = kept.fetch if kept is not None else None
                given, run = ticket_for(kept), _Spilled(self, item, call, [activation])
                del activation
            else:
                given, run, source = activation, _Pass(self, item, call), activation.detach
            recover = (
                partial(self._again, item, source, call, moment) if taping and source else None
            )
            activation = checkpoint(  # pyright: ignore[reportAssignmentType]
                run,
                given,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=moment.contexts,
            )
        return activation

    def _spill(self, activation: torch.Tensor, recover: Recover | None) -> Boundary:
        assert self.disk is not None
        assert recover is not None  # the stage before ran in a region: see ``tree``
        boundary = Boundary(activation, self.disk, recover)
        self.writing.append(boundary)
        self.on_disk = [*(ref for ref in self.on_disk if ref() is not None), weakref.ref(boundary)]
        return boundary

    def _prefetch_before(self, boundary: Boundary, spare: int) -> None:
        """Read ahead what the backward needs next, if that fits beside the plan's peak."""
        alive = [one for ref in self.on_disk if (one := ref()) is not None]
        place = alive.index(boundary) if boundary in alive else 0
        waiting = [one for one in alive[:place] if one.expected and not one.coming]
        ahead = sum(one.ahead for one in alive if one is not boundary)
        if waiting and ahead + waiting[-1].size <= spare:
            waiting[-1].prefetch()

    @contextmanager
    def _replaying(self) -> Iterator[None]:
        """A recomputation that stops before its end leaves no write behind."""
        try:
            yield
        except _StopRecomputationError:
            self._settle()
            raise
        finally:
            self.writing.clear()  # what an exception left behind

    def _settle(self) -> None:
        while self.writing:
            self.writing.pop().settle()

    def _again(self, item: Node, source: Recover, call: Call, moment: Moment) -> torch.Tensor:
        """The output of a region, computed again without a tape."""
        with moment.contexts()[1], torch.enable_grad(), dropped_tapes():
            activation, call = source(), call.again()
            for index in range(item.start, item.stop):
                activation = self._run_block(index, activation, call)
        return activation.detach()

    def _run_block(self, index: int, activation: torch.Tensor, call: Call) -> torch.Tensor:
        output = call.run(self._original(index), activation)
        result = activation_of(output, where=self.names[index])
        self.outputs[index] = like_output(output, None) if result is not output else None  # pyright: ignore[reportArgumentType]
        self._settle()  # a write may last as long as the block that reads what is written
        return result

    def _moment(self, start: int, stop: int, activation: torch.Tensor, call: Call) -> Moment:
        named = dict(zip(self.names[start:stop], self.blocks[start:stop], strict=True))
        return Moment(named, activation.device, call, self.copies)

    def _original(self, index: int) -> Any:
        return self.calls[index].__get__(self.blocks[index])

    def _start(self, activation: torch.Tensor, call: Call) -> Passage:
        """Run the whole chain."""
        output = self.forward(activation, call)
        return Passage(self, 0, self.names[0], output, call, random_state(output))

    def _expect(self, index: int, activation: Any, call: Call) -> Passage:
        """Hand on, after a check that nothing happened between the blocks."""
        passage = activation.passage if isinstance(activation, Handed) else None
        name, before = self.names[index], self.names[index - 1]
        if passage is None or passage.chain is not self or passage.index != index - 1:
            self._refuse_between(f"{name} is not called with the output of {before}")
        if not call.same_extra(passage.call):
            self._refuse_between(f"{name} is called with other extra arguments than {before}")
        if not same_state(passage.random, random_state(passage.output)):
            self._refuse_between(f"random numbers are drawn between {before} and {name}")
        return Passage(self, index, name, passage.output, call, passage.random)

    def _refuse_between(self, what: str) -> NoReturn:
        raise RecomputationError(
            f"{what}: regions span blocks only where the model's loop does nothing in between and "
            "hands every block the same extra arguments. Call rematerialize again with a sample "
            "for which it does this, or name another list with blocks=…"
        )

    def _tree_for(self, activation: torch.Tensor, call: Call) -> Node:
        """The planned tree, for this kind of input."""
        changed = self._changed(activation, call)
        if not changed:
            return self.root
        if self.replan is None:
            self._refuse(
                changed,
                ", or use rematerialize(model, sample=…, budget=…), which plans anew by itself",
            )
        kind = tuple(conditions(activation, call, self.blocks).values())
        if kind not in self.planned:
            blocks = nn.ModuleList(self.blocks)
            with untouched(blocks, activation), unhooked(blocks.modules()):
                self.planned[kind] = tree(self.replan(self.subjects(activation, call)))
        return self.planned[kind]

    def _changed(self, activation: torch.Tensor, call: Call) -> str:
        """What is not as planned; empty when all is, or when the chain was written by hand."""
        if not self.schedule.conditions:
            return ""
        return differences(self.schedule.conditions, conditions(activation, call, self.blocks))

    def _refuse(self, changed: str, advice: str = "") -> NoReturn:
        raise ScheduleError(
            f"the schedule was made for another step: {changed}. Profile and plan for this one"
            f"{advice}"
        )


class _Alone:
    """One block as a region."""

    def __init__(self, original: Any, call: Call) -> None:
        self.original, self.call, self.ran = original, call, False

    def __call__(self, activation: torch.Tensor) -> Any:
        call, self.ran = self.call.again() if self.ran else self.call, True
        return call.run(self.original, activation)


class _Pass:
    """A region: its first run writes no tape, every later one does."""

    def __init__(self, executor: Executor, item: Node, call: Call) -> None:
        self.executor, self.item, self.call, self.ran = executor, item, call, False

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        taping, self.ran = self.ran, True
        if not taping:
            return self.executor._run(self.item, activation, self.call, taping=False)
        with self.executor._replaying():
            return self.executor._run(self.item, activation, self.call.again())


class _Spilled:
    """A region whose input waits on disk: given once, then fetched for its ticket."""

    def __init__(
        self, executor: Executor, item: Node, call: Call, first: list[torch.Tensor]
    ) -> None:
        self.executor, self.item, self.call, self.first = executor, item, call, first

    def __call__(self, ticket: torch.Tensor) -> torch.Tensor:
        run = self.executor._run
        if self.first:
            return run(self.item, self.first.pop(), self.call, taping=False)
        boundary = boundary_of(ticket)
        self.executor._prefetch_before(boundary, self.item.spare)
        with self.executor._replaying():
            return run(self.item, boundary.fetch(), self.call.again(), boundary=boundary)


def attach(
    model: nn.Module,
    found: Blocks,
    schedule: Schedule,
    replan: Replan | None = None,
    disk: DiskTier | None = None,
    *,
    alone: bool = False,
) -> nn.Module:
    """Let a model run by a schedule from now on. Same object, parameters, hooks and state_dict."""
    detach(found)
    executor = Executor(found, schedule, replan, disk, alone=alone)
    if found.container is not None:
        specialize(found.container, {"forward": _sequential_forward}, (executor, -1))
        return model
    for index, block in enumerate(found.modules):
        specialize(block, {"__call__": _block_call}, (executor, index))
    return model


def detach(found: Blocks) -> None:
    """Undo ``attach``: every block runs as its own class says."""
    plain(found.modules if found.container is None else [*found.modules, found.container])


def _sequential_forward(self: Any, activation: Any) -> Any:
    entry = self.__dict__.get(ENTRY)  # a slice of a Sequential has its class and not this
    if entry is None or not torch.is_grad_enabled():
        return written(self).forward(self, activation)
    return _run_container(entry[0], self, activation)


def _block_call(self: Any, *args: Any, **kwargs: Any) -> Any:
    entry = self.__dict__.get(ENTRY)
    if entry is None or not torch.is_grad_enabled():
        return written(self).__call__(self, *args, **kwargs)
    executor, index = entry
    return _run_block(executor, index, args, kwargs)


# a compiler that traces a whole model leaves these to Python, as it does torch's own checkpoint


@torch._disable_dynamo
def _run_container(executor: Executor, container: nn.Sequential, activation: Any) -> Any:
    executor.require_same(container)
    return executor.forward(*take_activation((activation,), {}))


@torch._disable_dynamo
def _run_block(executor: Executor, index: int, args: tuple[Any, ...], kwargs: Any) -> Any:
    return executor.call_block(index, args, kwargs)
