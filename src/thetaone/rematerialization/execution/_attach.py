"""Lets a model run by a schedule: its blocks, its container, and the model itself where needed."""

from collections.abc import Callable
from typing import Any

from torch import nn

from thetaone.errors import ProfileError
from thetaone.records import Schedule
from thetaone.rematerialization.blocks import (
    CALL,
    ENTRY,
    Blocks,
    in_python,
    plain,
    route_calls,
    specialize,
    written,
)
from thetaone.rematerialization.disk import DiskTier
from thetaone.rematerialization.execution._chain_runner import ChainRunner, Replan

Adapt = Callable[[ChainRunner, nn.Module, tuple[Any, ...], dict[str, Any]], None]


class ModelRunner:
    """Stands before a model's forward: a step begins, perhaps one that needs another plan.

    Args:
        chain: Runs the blocks.
        adapt: Plans anew for what the model is called with; None leaves that to the blocks.
    """

    def __init__(self, chain: ChainRunner, adapt: Adapt | None) -> None:
        self.chains: list[tuple[ChainRunner, Adapt | None]] = [(chain, adapt)]

    def call_block(
        self, block: nn.Module, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run the model's forward, after what its chains need."""
        for chain, adapt in self.chains:
            if not chain.runs_as_written((*args, *kwargs.values())):
                chain.next = 0
                if adapt is not None:
                    adapt(chain, block, args, kwargs)
        return written(block).__call__(block, *args, **kwargs)


def attach(
    model: nn.Module,
    blocks: Blocks,
    schedule: Schedule,
    *,
    replan: Replan | None = None,
    adapt: Adapt | None = None,
    disk: DiskTier | None = None,
    sizes: tuple[Any, ...] | None = None,
) -> nn.Module:
    """Let a model run by a schedule from now on. Same object, parameters, hooks and state_dict.

    Raises:
        ProfileError: A block that is to be recomputed holds a state that cannot be noted.
    """
    detach(model, blocks)
    chain = ChainRunner(blocks, schedule, replan, disk, sizes=sizes)
    for region in schedule.regions:
        for stage in range(region.start, region.stop):
            chain.plan.runner.watch(stage).require_readable(ProfileError)
    if blocks.container is not None:
        specialize(blocks.container, CONTAINER, (chain, -1))
        return model
    route_calls(blocks.modules, chain)
    several = len(chain.plan.stages) > len(chain.plan.places)
    if (adapt is not None or several) and all(model is not block for block in blocks.modules):
        runner = getattr(model.__dict__.get(ENTRY), "runner", None)
        if isinstance(runner, ModelRunner):
            runner.chains.append((chain, adapt))
        else:
            specialize(model, CALL, (ModelRunner(chain, adapt), -1))
    return model


def detach(model: nn.Module, blocks: Blocks) -> None:
    """Undo ``attach``: every block runs as its own class says."""
    plain(blocks.modules if blocks.container is None else [*blocks.modules, blocks.container])
    runner = getattr(model.__dict__.get(ENTRY), "runner", None)
    if isinstance(runner, ModelRunner):
        mine = set(map(id, blocks.modules))
        runner.chains = [
            (chain, adapt)
            for chain, adapt in runner.chains
            if mine.isdisjoint(map(id, chain.blocks.modules))
        ]
        if not runner.chains:
            plain([model])


def _forward(self: Any, activation: Any) -> Any:
    entry = self.__dict__.get(ENTRY)  # a slice of a Sequential has its class and not this
    if entry is None:
        return written(self).forward(self, activation)
    return in_python(_run_container, entry.runner, self, activation)


def _run_container(chain: ChainRunner, container: nn.Sequential, activation: Any) -> Any:
    if chain.runs_as_written((activation,)):
        return written(container).forward(container, activation)
    return chain.run_container(container, activation)


CONTAINER: dict[str, Any] = {"forward": _forward}
