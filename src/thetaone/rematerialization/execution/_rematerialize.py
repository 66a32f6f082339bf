"""The call: let a model train by a schedule, or within a budget."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, ProfileError, ScheduleError
from thetaone.records import Chain, Schedule
from thetaone.rematerialization.blocks import REASON, as_written, find_blocks
from thetaone.rematerialization.disk import DiskTier
from thetaone.rematerialization.execution._attach import attach
from thetaone.rematerialization.execution._replan import (
    ForModel,
    WithinBudget,
    model_conditions,
    sizes_of,
)
from thetaone.rematerialization.planning import budget_bytes, naming_floor
from thetaone.rematerialization.profiling import (
    Modes,
    profile,
    require_current,
    require_same_blocks,
)


def rematerialize(
    model: nn.Module,
    schedule: Schedule | None = None,
    *,
    sample: Any = None,
    chain: Chain | None = None,
    budget: int | float | str | None = None,
    disk: DiskTier | str | Path | None = None,
    blocks: str | Sequence[str] | None = None,
    memory_units: int = 500,
) -> nn.Module:
    """Make a model recompute activations in its backward as a schedule says.

    The same object comes back: same parameters, hooks, state_dict and outputs, and bitwise the same
    gradients, buffers, plain attributes and random state. Without gradients (``torch.no_grad``)
    nothing changes.

    Args:
        model: An ``nn.Sequential``, or a model whose forward calls blocks in turn.
        schedule: From ``plan``; or give ``sample`` and ``budget``.
        sample: Inputs of one training step: a tensor, a tuple of arguments or a dict of keywords.
        chain: A profile of this model and sample made before, e.g. ``Chain.from_json(text)``; None
            measures now.
        budget: Bytes that the chain of blocks may hold beyond its input, e.g. ``"2GiB"``, or a
            fraction of store-all.
        disk: A directory or a ``DiskTier`` for kept activations.
        blocks: Qualified name of the list of blocks, or several names, which share the budget;
            None finds them.
        memory_units: Levels of memory in the planner's table [count].

    Raises:
        InputError: Neither a schedule nor both ``sample`` and ``budget``, or all of them.
        ScheduleError: The schedule is for other blocks.
        BudgetTooSmallError: No schedule fits the budget.
        ProfileError: The model has no chain of blocks, one cannot be recomputed, ``chain`` is a
            profile of something else, or the model was compiled with ``fullgraph=True``.

    Examples:
        >>> model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
        >>> model = rematerialize(model, sample=torch.zeros(4, 8), budget=0.9)
        >>> model(torch.zeros(4, 8)).sum().backward()
    """
    if (schedule is None) == (sample is None) or (sample is None) != (budget is None):
        raise InputError(
            "rematerialize needs either a schedule or both sample=… and budget=…; "
            f"got schedule={'yes' if schedule else 'no'}, "
            f"sample={'no' if sample is None else 'yes'}, budget={budget}"
        )
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}: need an nn.Module")
    _require_graph_breaks(model)
    tier = DiskTier(disk) if isinstance(disk, str | Path) else disk
    within, adapt, sizes = None, None, None
    if schedule is None:
        assert budget is not None
        args, kwargs = as_call(sample)
        if chain is None:
            chain = profile(model, *args, blocks=blocks, **kwargs)
        else:
            require_current(chain, model, *args, blocks=blocks, **kwargs)
        limit = budget_bytes(chain, budget)
        within = WithinBudget(type(model).__name__, limit, memory_units, tier)
        with naming_floor(chain, budget):
            schedule, sizes = within.plan(chain), sizes_of(chain)
        if chain.separate or chain.lists:
            modules = {one.name: model.get_submodule(one.name) for one in chain.stages}
            sampled = model_conditions(Modes(modules.values()), args, kwargs)
            adapt = ForModel(within, blocks, sampled, sizes)
    with as_written(model):
        links = find_blocks(model, blocks, lambda: schedule.stages)
    require_same_blocks(schedule, links, some=sample is not None)
    if tier is None and any(region.tier == "disk" for region in schedule.regions):
        raise ScheduleError("the schedule keeps activations on disk: pass disk='/a/directory'")
    if links.container is not None:
        adapt = None  # a container sees all that its blocks are called with
    replan = within if adapt is None else None
    return attach(model, links, schedule, replan=replan, adapt=adapt, disk=tier, sizes=sizes)


def _require_graph_breaks(model: nn.Module) -> None:
    """Refuse a model that was compiled as one graph.

    Raises:
        ProfileError: It was.
    """
    context = getattr(model, "dynamo_ctx", None)
    if getattr(context, "fullgraph", False) or getattr(context, "error_on_graph_break", False):
        raise ProfileError(f"the model was compiled with fullgraph=True: {REASON}")


def as_call(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a sample."""
    if isinstance(sample, dict):
        return (), dict(sample)
    if isinstance(sample, tuple | list):
        return tuple(sample), {}
    if isinstance(sample, torch.Tensor):
        return (sample,), {}
    raise InputError(f"sample is a {type(sample).__name__}; give a tensor, a tuple or a dict")
