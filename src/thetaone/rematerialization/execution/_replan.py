"""Plans anew, within the same bytes, for a step that is not as it was planned."""

from collections.abc import Sequence
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

    def __call__(self, subjects: list[Subject]) -> Replanned:
        """Profile the blocks as they are called now, and plan them.

        Raises:
            BudgetTooSmallError: This size does not fit.
        """
        chain = measured_chain(subjects, 1, model=self.model)
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
        if not differences(self.planned, now):
            chain.plan = self.first
            return
        kind = tuple(now.values())
        if kind not in self.plans:
            measured = profile(model, *args, blocks=self.blocks, repeats=1, **kwargs)
            schedule = self.within.plan(measured)
            if sizes_of(measured) == self.sizes and _only_values(self.planned, now):
                self.ignored.add("extra values")
                chain.plan = self.first
                return
            self.plans[kind] = Plan.of(chain.blocks, schedule, chain.disk, whole=False)
        chain.plan = self.plans[kind]

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


def sizes_of(chain: Chain) -> tuple[Any, ...]:
    """The bytes of a chain's stages."""
    return tuple(stage.costs[3:] for stage in chain.stages)


def _only_values(planned: dict[str, str], now: dict[str, str]) -> bool:
    return all(now.get(name) == one for name, one in planned.items() if name != "extra values")
