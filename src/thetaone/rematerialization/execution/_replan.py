"""Plans anew, within the same bytes, for a step that is not as it was planned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from thetaone.records import Chain, Schedule
from thetaone.rematerialization.accounting import tensors_in
from thetaone.rematerialization.blocks import Call, mapped
from thetaone.rematerialization.disk import DiskTier
from thetaone.rematerialization.execution._chain_runner import ChainRunner, Replanned
from thetaone.rematerialization.execution._ready_plan import Plan
from thetaone.rematerialization.planning import plan
from thetaone.rematerialization.profiling import (
    Modes,
    Subject,
    conditions,
    differences,
    measured_chain,
    profile,
)


@dataclass(frozen=True)
class WithinBudget:
    """Plans a chain within the bytes that were asked for.

    Attributes:
        model: Name of the model's class.
        budget_bytes: For the chain of blocks [bytes].
        memory_units: Levels of memory in the planner's table [count].
        disk: Second tier, if there is one.
    """

    model: str
    budget_bytes: int
    memory_units: int
    disk: DiskTier | None = None

    def __call__(self, subjects: list[Subject], kept: Mapping[int, int]) -> Replanned:
        """Profile the blocks as they are called now, and plan them.

        Args:
            subjects: The blocks.
            kept: What stages kept at least, in a step before [bytes].

        Raises:
            BudgetTooSmallError: This size does not fit.
        """
        chain = keeping(measured_chain(subjects, 1, model=self.model), kept)
        return Replanned(self.plan(chain), sizes_of(chain))

    def plan(self, chain: Chain) -> Schedule:
        """The fastest schedule of a chain within the budget.

        Raises:
            BudgetTooSmallError: None fits.
        """
        price = None if self.disk is None else self.disk.cost
        return plan(chain, self.budget_bytes, disk=price, memory_units=self.memory_units)


@dataclass
class ForModel:
    """Plans a model anew by a forward of its own, where blocks run in more than one section.

    Args:
        within: The budget.
        blocks: Names of the lists of blocks.
        planned: Conditions of the sample that was planned first.
        sizes: Bytes of the stages of the chain that was planned first.
    """

    within: WithinBudget
    blocks: Sequence[str] | None
    planned: dict[str, str]
    sizes: tuple[Any, ...]
    plans: dict[tuple[str, ...], Plan] = field(default_factory=dict[tuple[str, ...], Plan])
    ignored: set[str] = field(default_factory=set[str])
    first: Plan | None = None

    def __call__(
        self,
        chain: ChainRunner,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Give a chain the plan for what its model is called with."""
        self.first = self.first or chain.plan
        now = model_conditions(chain.first_plan.modes, args, kwargs)
        now = {name: one for name, one in now.items() if name not in self.ignored}
        changed, kind = differences(self.planned, now), tuple(now.values())
        current = self.plans.get(kind) if changed else self.first
        outgrown = current.runner.first_step.outgrown if current else {}
        if current and not outgrown:
            chain.plan = current
            return
        measured = profile(model, *args, blocks=self.blocks, repeats=1, **kwargs)
        measured = keeping(measured, outgrown)
        schedule, sizes = self.within.plan(measured), sizes_of(measured)
        if changed and sizes == self.sizes and _only_values(self.planned, now):
            self.ignored.add("extra values")
            chain.plan = self.first
            return
        chain.plan = Plan.of(chain.blocks, schedule, chain.disk, whole=False)
        if changed:
            self.plans[kind] = chain.plan
        else:
            self.first, self.planned, self.sizes, self.plans = chain.plan, now, sizes, {}

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy, whose plans are of other blocks."""
        return {**self.__dict__, "plans": {}, "first": None}


def model_conditions(modes: Modes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
    """What decides the bytes of a step, as seen from a model's arguments; empty without tensors."""
    tensors = tensors_in((args, kwargs))
    if not tensors:
        return {}

    def value(leaf: Any) -> Any:
        return None if isinstance(leaf, torch.Tensor) else leaf

    return conditions(tensors, Call(*mapped((args, kwargs), value)), modes)


def keeping(chain: Chain, kept: Mapping[int, int]) -> Chain:
    """A chain whose stages keep at least what they were seen to keep."""
    if not kept:
        return chain
    stages = [
        stage.model_copy(update={"tape_bytes": max(stage.tape_bytes, kept.get(place, 0))})
        for place, stage in enumerate(chain.stages)
    ]
    return chain.model_copy(update={"stages": tuple(stages)})


def sizes_of(chain: Chain) -> tuple[Any, ...]:
    """The bytes of a chain's stages."""
    return tuple(stage.costs[3:] for stage in chain.stages)


def _only_values(planned: dict[str, str], now: dict[str, str]) -> bool:
    return all(now.get(name) == one for name, one in planned.items() if name != "extra values")
