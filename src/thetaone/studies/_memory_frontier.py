"""What training a task's model takes in memory: the chain, its frontier, a plan, and the rest."""

from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError
from thetaone.parametrization import optimizer_class
from thetaone.records import Chain, Cost, DiskCost, Frontier, MemoryPlan, Schedule
from thetaone.rematerialization import (
    disk_cost,
    frontier,
    optimizer_tensors,
    plan,
    profile,
    simulate,
    storage_bytes,
)
from thetaone.tasks import load_task


def memory_frontier(
    task: Any,
    *,
    width: int,
    depth: int | None = None,
    budget: int | float | str | None = None,
    blocks: str | None = None,
    memory_units: int = 500,
    disk: str | None = None,
    seed: int = 0,
    optimizer: str = "AdamW",
) -> MemoryPlan:
    """Profile a task's model, draw its frontier, and plan it within a budget.

    Args:
        task: A task, or what names one.
        width: Width of the model.
        depth: Depth, for a task whose ``model`` takes one.
        budget: For the chain of blocks: bytes, ``"2GiB"`` or a fraction of store-all, ``0.5`` or
            ``"50%"``; None plans nothing.
        blocks: Qualified name of the list of blocks; None finds it.
        memory_units: Levels of memory in the planner's table [count].
        disk: Directory of a second tier, measured there; None plans in memory alone.
        seed: Of the weights and the batch.
        optimizer: Whose state is added to the account, with its default options: a name of
            ``torch.optim`` or ``pytorch_optimizer``.

    Raises:
        UnknownOptimizerError: No optimizer of that name.
        InputError: A budget that is no quantity, a width or depth below 1, or an optimizer that
            cannot step this model.
        BudgetTooSmallError: No schedule fits the budget.
        ProfileError: The model has no chain of blocks.
    """
    for name, value in (("width", width), ("depth", depth)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: need 1 or more (--{name} 64)")
    cls = optimizer_class(optimizer)
    loaded = load_task(task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = loaded.model(width) if depth is None else loaded.model(width, depth)
    batch = next(iter(loaded.batches(seed)))
    chain = profile(model, batch, blocks=blocks, forward=loaded.loss)
    schedule, cost, line = _planned(
        chain, budget, None if disk is None else disk_cost(disk), memory_units
    )
    trained = storage_bytes(p for p in model.parameters() if p.requires_grad)
    return MemoryPlan(
        task=loaded.name,
        width=width,
        chain=chain,
        frontier=line,
        schedule=schedule,
        cost=cost,
        weight_bytes=storage_bytes([*model.parameters(), *model.buffers()]),
        gradient_bytes=trained,
        optimizer_bytes=_state_bytes(model, cls),
        optimizer=optimizer,
    )


def planned_again(
    memory: MemoryPlan, budget: int | float | str, *, memory_units: int = 500
) -> MemoryPlan:
    """Another budget for what was measured before, with the disk it was planned with, if any.

    Raises:
        InputError: A budget that is no quantity.
        BudgetTooSmallError: No schedule fits the budget.
    """
    disk = memory.schedule.disk if memory.schedule is not None else None
    schedule, cost, line = _planned(memory.chain, budget, disk, memory_units)
    return memory.model_copy(update={"schedule": schedule, "cost": cost, "frontier": line})


def _planned(
    chain: Chain, budget: int | float | str | None, disk: DiskCost | None, memory_units: int
) -> tuple[Schedule | None, Cost | None, Frontier]:
    schedule = cost = None
    if budget is not None:
        schedule = plan(chain, budget, disk=disk, memory_units=memory_units)
        cost = simulate(chain, schedule)
    return (
        schedule,
        cost,
        frontier(chain, chosen=schedule, memory_units=memory_units, disk=disk),
    )


def _state_bytes(model: nn.Module, cls: type[torch.optim.Optimizer]) -> int:
    """Bytes that the optimizer keeps after a step; takes one, so the model is spent."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    try:
        optimizer = cls(parameters, lr=1e-3)  # pyright: ignore[reportCallIssue]
        optimizer.step()
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"optimizer={cls.__name__} cannot step this model: {error}. Name another one"
        ) from error
    return storage_bytes(optimizer_tensors(optimizer))
