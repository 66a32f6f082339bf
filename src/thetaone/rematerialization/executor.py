"""Runs a chain of blocks by a schedule: nested regions of non-reentrant checkpointing."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from thetaone.errors import RecomputationError, ScheduleError
from thetaone.records.schedule import Schedule
from thetaone.rematerialization.blocks import Blocks, describe_tensor
from thetaone.rematerialization.calls import Call, activation_of, like_output, take_activation
from thetaone.rematerialization.disk_tier import DiskTier
from thetaone.rematerialization.measure import Subject, dropped_tapes, untouched
from thetaone.rematerialization.offload import Boundary, Recover, boundary_of, ticket_for
from thetaone.rematerialization.profiler import note_subject
from thetaone.rematerialization.replay import Moment
from thetaone.rematerialization.tree import Node, tree

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
        self.schedule = schedule
        self.root = tree(schedule)
        self.alone = alone
        self.again = {region.start for region in schedule.regions}
        self.replan = replan
        self.planned: dict[str, Node] = {}
        self.outputs: list[Any] = [None] * len(self.blocks)
        self.passing: tuple[int, torch.Tensor, Call] | None = None
        self.disk = disk
        self.writing: list[Boundary] = []
        self.on_disk: list[weakref.ref[Boundary]] = []  # in the order of the forward

    def forward(self, activation: torch.Tensor, call: Call) -> torch.Tensor:
        """The whole chain."""
        return self._run(self._tree_for(activation, call), activation, call)

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
        if not torch.is_grad_enabled():
            return self._original(index)(*args, **kwargs)
        activation, call = take_activation(args, kwargs)
        if self.alone:
            return self._run_alone(index, activation, call)
        if index == 0:
            output = self.forward(activation, call)
        else:
            output = self._expect(index, activation, call)
        last = index == len(self.blocks) - 1
        self.passing = None if last else (index, output, call)
        return like_output(self.outputs[index], output)

    def _run_alone(self, index: int, activation: torch.Tensor, call: Call) -> Any:
        """One block, recomputed or not, whatever the others are called with."""
        if index == 0 and not self._is_planned(activation):
            self._refuse(activation)
        original = self._original(index)
        if index not in self.again:
            return call.run(original, activation)
        moment = Moment([self.blocks[index]], activation.device)
        return checkpoint(
            partial(call.run, original),
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
            moment = Moment(self.blocks[item.start : item.stop], activation.device)
            kept = None
            if self.disk is not None and item.tier == "disk" and item.start > 0:
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
        boundary = Boundary(activation, self.disk, recover)
        self.writing.append(boundary)
        self.on_disk = [*(ref for ref in self.on_disk if ref() is not None), weakref.ref(boundary)]
        return boundary

    def _prefetch_before(self, boundary: Boundary) -> None:
        """Read ahead what the backward needs next, if that fits beside the plan's peak."""
        alive = [one for ref in self.on_disk if (one := ref()) is not None]
        place = alive.index(boundary) if boundary in alive else 0
        budget = self.schedule.budget_bytes
        spare = 0 if budget is None else budget - self.schedule.peak_bytes
        if place > 0 and alive[place - 1].size <= spare:
            alive[place - 1].prefetch()

    def _again(self, item: Node, source: Recover, call: Call, moment: Moment) -> torch.Tensor:
        """The output of a region, computed again without a tape."""
        with moment.contexts()[1], torch.enable_grad(), dropped_tapes():
            activation = source()
            for index in range(item.start, item.stop):
                activation = self._run_block(index, activation, call)
        return activation.detach()

    def _run_block(self, index: int, activation: torch.Tensor, call: Call) -> torch.Tensor:
        output = call.run(self._original(index), activation)
        result = activation_of(output, where=self.names[index])
        self.outputs[index] = like_output(output, None) if result is not output else None  # pyright: ignore[reportArgumentType]
        while self.writing:  # a write may last as long as the block that reads what is written
            self.writing.pop().settle()
        return result

    def _original(self, index: int) -> Any:
        block = self.blocks[index]
        call = getattr(type(block), "_original_call", None)
        return block if call is None else call.__get__(block)

    def _expect(self, index: int, activation: torch.Tensor, call: Call) -> torch.Tensor:
        """Hand on, after a check that nothing happened between the blocks."""
        passing, self.passing = self.passing, None
        if passing is None or passing[0] != index - 1 or passing[1] is not activation:
            raise RecomputationError(
                f"{self.names[index]} is not called with the output of the block before it: "
                "regions span blocks only where the model's loop does nothing in between. "
                "Name another list with blocks=…"
            )
        if not call.same_extra(passing[2]):
            raise RecomputationError(
                f"{self.names[index]} is called with other extra arguments than "
                f"{self.names[index - 1]}: regions that span blocks need the same ones"
            )
        return activation

    def _tree_for(self, activation: torch.Tensor, call: Call) -> Node:
        """The planned tree, for this size of input."""
        if self._is_planned(activation):
            return self.root
        if self.replan is None:
            self._refuse(
                activation,
                ", or use rematerialize(model, sample=…, budget=…), which plans anew by itself",
            )
        given = describe_tensor(activation)
        if given not in self.planned:
            with untouched(nn.ModuleList(self.blocks), activation):
                self.planned[given] = tree(self.replan(self.subjects(activation, call)))
        return self.planned[given]

    def _is_planned(self, activation: torch.Tensor) -> bool:
        planned = self.schedule.input
        same = planned == describe_tensor(activation)
        return not planned or same or _same_shape_and_smaller(planned, activation)

    def _refuse(self, activation: torch.Tensor, advice: str = "") -> NoReturn:
        raise ScheduleError(
            f"the chain's input is {describe_tensor(activation)} and the schedule was made for "
            f"{self.schedule.input}: profile and plan for this size{advice}"
        )


class _Pass:
    """A region: its first run writes no tape, every later one does."""

    def __init__(self, executor: Executor, item: Node, call: Call) -> None:
        self.executor, self.item, self.call, self.ran = executor, item, call, False

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        taping, self.ran = self.ran, True
        return self.executor._run(self.item, activation, self.call, taping=taping)


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
        self.executor._prefetch_before(boundary)
        return run(self.item, boundary.fetch(), self.call, boundary=boundary)


def _same_shape_and_smaller(planned: str, activation: torch.Tensor) -> bool:
    """Under autocast the same shape flows in a smaller type."""
    name, _, shape = planned.partition("[")
    size = getattr(torch, name).itemsize
    return f"[{shape}" == str(list(activation.shape)) and activation.itemsize <= size


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
    executor = Executor(found, schedule, replan, disk, alone=alone)
    if found.container is not None:
        _specialize(found.container, {"forward": _sequential_forward}, executor, -1)
        return model
    for index, block in enumerate(found.modules):
        members = {"__call__": _block_call, "_original_call": type(block).__call__}
        _specialize(block, members, executor, index)
    return model


def detach(model: nn.Module) -> nn.Module:
    """Undo ``attach``: every block runs as its own class says."""
    for module in model.modules():
        if "_rematerialization" in module.__dict__:
            del module.__dict__["_rematerialization"]
            module.__class__ = type(module).__bases__[0]
    return model


def _specialize(module: nn.Module, members: dict[str, Any], executor: Executor, index: int) -> None:
    original = type(module)
    members = {**members, "__reduce_ex__": _reduce, "__module__": original.__module__}
    members["__qualname__"] = original.__qualname__
    module.__class__ = type(original.__name__, (original,), members)
    module.__dict__["_rematerialization"] = (executor, index)


def _sequential_forward(self: Any, activation: Any) -> Any:
    executor: Executor = self._rematerialization[0]
    if not torch.is_grad_enabled():
        for block in executor.blocks:
            activation = block(activation)
        return activation
    return executor.forward(*take_activation((activation,), {}))


def _block_call(self: Any, *args: Any, **kwargs: Any) -> Any:
    executor, index = self._rematerialization
    return executor.call_block(index, args, kwargs)


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle and deepcopy as the original class, specialized again on arrival."""
    original = type(self).__bases__[0]
    special = {name: type(self).__dict__[name] for name in ("forward",) if name in vars(type(self))}
    return _rebuild, (original, bool(special)), self.__dict__


def _rebuild(original: type[nn.Module], sequential: bool) -> nn.Module:
    module = original.__new__(original)
    members: dict[str, Any] = {"__reduce_ex__": _reduce, "__module__": original.__module__}
    members["__qualname__"] = original.__qualname__
    if sequential:
        members["forward"] = _sequential_forward
    else:
        members |= {"__call__": _block_call, "_original_call": original.__call__}
    module.__class__ = type(original.__name__, (original,), members)
    return module
