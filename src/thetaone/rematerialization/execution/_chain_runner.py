"""Runs a model's blocks by a schedule, whoever calls them: the model's own loop, or a container.

The chain is cut into sections, stretches of blocks that regions span. The first block of a section
runs all of it; the others hand on placeholders. A block that no region joins with another is a
section of its own and returns what it returns.
"""

import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from thetaone.errors import RecomputationError, ScheduleError
from thetaone.records import Schedule
from thetaone.rematerialization.blocks import (
    Blocks,
    Call,
    Draws,
    Remembered,
    ambient,
    first_call,
    generator_state,
    global_generators,
    is_cache,
    leaves_of,
    take_flow,
    written,
)
from thetaone.rematerialization.disk import DiskTier
from thetaone.rematerialization.execution._placeholders import (
    Placeholder,
    is_running_transform,
    placeholder_among,
    placeholder_in,
)
from thetaone.rematerialization.execution._ready_plan import Plan, subjects_of
from thetaone.rematerialization.execution._section import (
    Section,
    filled,
    placeholders,
    refuse_between,
    require_nothing_between,
)
from thetaone.rematerialization.execution._tree_runner import Execution
from thetaone.rematerialization.profiling import (
    Subject,
    conditions,
    differences,
)

PLAIN = {torch.Tensor, nn.Parameter, bool, int, float, str, type(None)}


@dataclass(frozen=True)
class Replanned:
    """A schedule made anew, with the bytes of the stages that it is for."""

    schedule: Schedule
    sizes: tuple[Any, ...]


Replan = Callable[[list[Subject], Mapping[int, int]], Replanned]


class ChainRunner:
    """The blocks of a model and the schedule by which they run.

    Args:
        blocks: The blocks.
        schedule: For the calls of these blocks.
        replan: Makes a schedule for a chain that is called otherwise; None refuses such a call.
        disk: Where the inputs of regions with ``tier="disk"`` wait.
        sizes: Bytes of the stages that the schedule is for, if they are known.
    """

    def __init__(
        self,
        blocks: Blocks,
        schedule: Schedule,
        replan: Replan | None = None,
        disk: DiskTier | None = None,
        *,
        sizes: tuple[Any, ...] | None = None,
    ) -> None:
        self.blocks, self.disk, self.replan, self.sizes = blocks, disk, replan, sizes
        self.ignored: set[str] = set()  # conditions that turned out to change no bytes
        self.plan = Plan.of(blocks, schedule, disk, whole=blocks.container is not None)
        self.others: dict[tuple[str, ...], Plan] = {}  # for chains that are called otherwise
        self.first_plan = self.plan
        self.earlier = Remembered()  # arguments of this forward that come again
        self.caches: dict[int, WeakSet[Any]] = {}  # with which stages were called
        self.next = 0  # the stage that is expected, where a block is used many times
        self.warned, self.warned_of_hooks = False, False

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy: nothing of a step under way."""
        return {**self.__dict__, "others": {}, "earlier": Remembered(), "caches": {}, "next": 0}

    def call_block(
        self, block: nn.Module, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What happens when the model's loop calls a block."""
        if self.runs_as_written((*args, *kwargs.values())):
            return written(block).__call__(block, *args, **kwargs)
        stage = self._stage_of(block)
        if self.plan.needs_nothing(stage) and _is_plain((*args, *kwargs.values())):
            self.next = (stage + 1) % len(self.plan.stages)
            return self.plan.runner.run_within(written(block).__call__, block, *args, **kwargs)
        placeholder = placeholder_among((*args, *kwargs.values()))
        if placeholder is not None:
            return self._hand_on(block, placeholder, args, kwargs)
        flowing, call = first_call(args, kwargs)
        plan = self._plan_for(flowing, call) if stage == 0 else self.plan
        if stage not in plan.sections:
            name, before = plan.stages[stage].name, plan.stages[stage - 1].name
            refuse_between(f"{name} is not called with the output of {before}")
        if not call.simple:
            self._refuse_used_caches(stage, plan.stages[stage].name, call)
        if plan.recalled:
            call = self._recalling(plan, stage, call)
        self.next = (plan.sections[stage].stop) % len(plan.stages)
        if stage in plan.alone:  # its tape is kept: nothing to prepare
            return plan.runner.run_taping(stage, call, flowing)
        return self._start(plan, stage, flowing, call)

    def run_container(self, container: nn.Sequential, activation: Any) -> Any:
        """The whole chain, called as a container."""
        now = list(container._modules.values())
        if len(now) != len(self.blocks.modules) or not all(
            map(operator.is_, now, self.blocks.modules)
        ):
            raise ScheduleError(
                f"the blocks {self.blocks.names[0]} … {self.blocks.names[-1]} were added to, "
                "removed or replaced after rematerialize: call it again"
            )
        flowing, call = first_call((activation,), {})
        plan = self._plan_for(flowing, call)
        if plan.keeps_all and not any(map(plan.runner.is_to_count, range(len(plan.stages)))):
            return plan.runner.run_within(written(container).forward, container, activation)
        return self._start(plan, 0, flowing, call)

    def runs_as_written(self, inputs: Iterable[Any]) -> bool:
        """Whether nothing is recomputed now: no gradient, within a block, no bytes, a transform."""
        if not torch.is_grad_enabled() or self.plan.runner.inside:
            return True
        if any(isinstance(one, torch.Tensor) and one.is_meta for one in inputs):
            return True
        if not is_running_transform():
            return False
        if not self.warned:
            self.warned = True
            warnings.warn(
                "a function transform, export, tracer or mode of fake tensors runs the model, or "
                "hooks of saved tensors are disabled: its blocks run as written, nothing is "
                "recomputed and the budget does not hold",
                RuntimeWarning,
                stacklevel=3,
            )
        return True

    def _stage_of(self, block: nn.Module) -> int:
        """Which stage a call of a block is: the next one of it, else its first.

        Raises:
            ScheduleError: None: the forward that was measured left the block out.
        """
        stages = self.plan.places.get(id(block))
        if stages is None:
            raise ScheduleError(
                f"{self.blocks.name_of(block)} runs, which the forward that was measured left out: "
                "call rematerialize again with a sample for which it runs"
            )
        return next((place for place in stages if place >= self.next), stages[0])

    def _refuse_used_caches(self, stage: int, name: str, call: Call) -> None:
        """Refuse a key-value cache of an earlier forward, in which it stayed empty.

        Raises:
            RecomputationError: One is passed again, to read what it does not hold.
        """
        known = self.caches.setdefault(stage, WeakSet())
        for one in filter(is_cache, leaves_of(call.before)):
            if one in known:
                raise RecomputationError(
                    f"{name} is called with the {type(one).__name__} of an earlier forward, in "
                    "which it stayed empty: what is recomputed would append to it twice. This "
                    "forward would see no past; train with all of a sequence in one forward"
                )
            known.add(one)

    def _recalling(self, plan: Plan, stage: int, call: Call) -> Call:
        """A call that begins a section, with what later ones have of earlier sections."""
        if stage == 0:
            self.earlier = Remembered()
        if stage in plan.recalled:
            self.earlier.note(stage, call)
        return call.after(self.earlier.now())

    def _start(self, plan: Plan, stage: int, activation: torch.Tensor, call: Call) -> Any:
        """Run a section; what its first block returns, or the last one if there is no other."""
        node = plan.sections[stage]
        self._look_for_hooks()
        now = ambient(activation.device)
        execution = Execution(now, Draws(activation.device, now))
        tensors = plan.runner.start(node, (activation,), call, execution)
        last = node.stop - 1
        if last == node.start or self.blocks.container is not None:
            return filled(execution.outputs[last], tensors)
        section = Section(
            plan,
            node.stop,
            execution,
            tensors,
            ambient(activation.device),
            [generator_state(one) for one in global_generators(activation.device)],
            {place: plan.runner.watch(place).now() for place in range(node.start, node.stop)},
        )
        return placeholders(section, node.start)

    def _look_for_hooks(self) -> None:
        """Say once that hooks of the caller's do not see what is recomputed."""
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore
        if hooks is None or self.warned_of_hooks or is_library_code(hooks[0]):
            return
        self.warned_of_hooks = True
        warnings.warn(
            "saved-tensor hooks are active around the model's forward: they act on the inputs of "
            "what is recomputed and not on its tape, so gradients are not the plain model's where "
            "a hook changes values (a tape of lower precision)",
            RuntimeWarning,
            stacklevel=3,
        )

    def _hand_on(
        self, block: nn.Module, before: Placeholder, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Hand on, after a check that nothing happened between the blocks."""
        section, stage = before.section, before.stage + 1
        assert isinstance(section, Section)
        stages = section.plan.stages
        if stage >= section.stop or stages[stage].block is not block:
            name = next((one.name for one in stages if one.block is block), "a block")
            refuse_between(f"{name} is not called with the output of the block before it")
        name = stages[stage].name

        def place(leaf: Any) -> int | None:
            handed = type(leaf) is Placeholder and leaf.section is section
            return leaf.place if handed and leaf.stage == stage - 1 else None

        call = take_flow(args, kwargs, place)
        if placeholder_in(leaves_of(call.before)) is not None:
            refuse_between(f"{name} is not called with the output of {before.name}")
        if call.differs_from(section.execution.calls[stage]):
            refuse_between(f"{name} is called with other extra arguments than {before.name}")
        require_nothing_between(section, stage, before.name)
        self.next = (stage + 1) % len(stages)
        if stage == section.stop - 1:
            return filled(section.execution.outputs[stage], section.tensors)
        return placeholders(section, stage)

    def _plan_for(self, activation: torch.Tensor, call: Call) -> Plan:
        """The plan for a chain that is called like this."""
        plan = self.plan
        if not plan.conditions:  # of a chain that was written by hand
            return plan
        now = conditions((activation,), call, plan.modes)
        now = {name: value for name, value in now.items() if name not in self.ignored}
        changed = differences(plan.conditions, now)
        if changed and self.replan is None:
            raise ScheduleError(
                f"the schedule was made for another step: {changed}. Profile and plan for this "
                "one, or use rematerialize(model, sample=…, budget=…), which plans anew by itself"
            )
        kind = tuple(now.values())
        current = self.others.get(kind) if changed else plan
        outgrown = current.runner.first_step.outgrown if current else {}
        if current and (self.replan is None or not outgrown):
            return current
        assert self.replan is not None
        subjects = copy_context().run(subjects_of, plan, activation, call)
        anew = self.replan(subjects, outgrown)
        if changed:
            if anew.sizes == self.sizes and changed.startswith("extra values was"):
                self.ignored.add("extra values")
                return plan
            self.others[kind] = Plan.of(self.blocks, anew.schedule, self.disk, whole=True)
            return self.others[kind]
        whole = self.blocks.container is not None
        self.plan = Plan.of(self.blocks, anew.schedule, self.disk, whole=whole)
        self.sizes, self.others = anew.sizes, {}
        return self.plan


def is_library_code(function: Any) -> bool:
    """Whether a function is torch's or this library's."""
    return (getattr(function, "__module__", None) or "").startswith(("torch.", "thetaone."))


def _is_plain(inputs: tuple[Any, ...]) -> bool:
    """Whether arguments, and what containers among them hold, are tensors and plain values."""
    types = set(map(type, inputs))
    return types <= PLAIN or PLAIN.issuperset(map(type, leaves_of(inputs)))
