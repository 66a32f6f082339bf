"""A schedule made ready to run: which block each stage is, and where the chain may be cut."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from thetaone.errors import ScheduleError
from thetaone.records import Schedule
from thetaone.rematerialization.blocks import Blocks, Call, recalled_stages, written
from thetaone.rematerialization.disk import DiskTier
from thetaone.rematerialization.execution._tree_runner import (
    StageCall,
    Tensors,
    TreeRunner,
    read_links,
)
from thetaone.rematerialization.planning import Node, tree
from thetaone.rematerialization.profiling import (
    Modes,
    Subject,
    dropped_tapes,
    outside_gradients,
    subject_of,
    unhooked,
    untouched,
)


@dataclass(frozen=True)
class Plan:
    """A schedule, ready to run.

    Attributes:
        runner: Runs nodes of its tree.
        sections: Stretches of blocks that regions span, by their first stage.
        conditions: Of the step that it was made for.
        places: Stages of each block, by the block's id.
        whole: Whether all stages are one section, whatever regions there are.
        alone: Stages whose tapes are kept, that no region has or spans.
        recalled: Stages of which later ones, in other sections, have arguments too.
        modes: Which modules train, and which parameters are trained.
    """

    runner: TreeRunner
    sections: dict[int, Node]
    conditions: dict[str, str]
    places: dict[int, list[int]]
    whole: bool
    alone: frozenset[int]
    recalled: frozenset[int]
    modes: Modes

    @classmethod
    def of(
        cls, blocks: Blocks, schedule: Schedule, disk: DiskTier | None, *, whole: bool
    ) -> "Plan":
        """Make a schedule ready to run."""
        stages = stage_calls(blocks, schedule)
        root = tree(schedule)
        sections = [root] if whole else cut_sections(root)
        return cls(
            TreeRunner(stages, schedule.moving, disk, schedule.tapes),
            {section.start: section for section in sections},
            dict(schedule.conditions),
            _places(stages),
            whole,
            frozenset(one.start for one in sections if one.items == [one.start]),
            frozenset[int]().union(*(recalled_stages(one.link) for one in stages)),
            Modes({one.name: one.block for one in stages}.values()),
        )

    @property
    def keeps_all(self) -> bool:
        """Whether no block is recomputed."""
        return all(isinstance(item, int) for one in self.sections.values() for item in one.items)

    def needs_nothing(self, stage: int) -> bool:
        """Whether a stage just runs: the first is held against the conditions, each once counted.

        A loop that calls it with a placeholder hands it something that no block computes with.
        """
        simple = stage > 0 and stage in self.alone and stage not in self.recalled
        return simple and not self.runner.is_to_count(stage)

    def __getstate__(self) -> dict[str, Any]:
        """State for a copy, whose blocks are others."""
        return {**self.__dict__, "places": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__["places"] = _places(self.stages)

    @property
    def stages(self) -> list[StageCall]:
        """The calls of the chain."""
        return self.runner.stages

    @property
    def blocks(self) -> dict[str, nn.Module]:
        """The blocks by name."""
        return {one.name: one.block for one in self.stages}

    @property
    def modules(self) -> list[nn.Module]:
        """All modules of the blocks."""
        return [module for block in self.blocks.values() for module in block.modules()]


def stage_calls(blocks: Blocks, schedule: Schedule) -> list[StageCall]:
    """The calls of a chain: in the order that was measured, or else each block once.

    Raises:
        ScheduleError: The schedule names blocks that the model does not have, or is of another
            length.
    """
    modules = dict(zip(blocks.names, blocks.modules, strict=True))
    names = schedule.stages if set(schedule.stages) <= modules.keys() else blocks.names
    names = names or blocks.names
    if len(names) != schedule.length:
        raise ScheduleError(
            f"the schedule has {schedule.length} stages and the model {len(names)} blocks "
            f"({names[0]} … {names[-1]}): profile and plan this model"
        )
    links = read_links(schedule.links, len(names))
    return [StageCall(name, modules[name], one) for name, one in zip(names, links, strict=True)]


def subjects_of(plan: Plan, activation: torch.Tensor, call: Call) -> list[Subject]:
    """The blocks as they would be called from here, to be profiled."""
    kinds: dict[Hashable, Subject] = {}
    subjects: list[Subject] = []
    flowing: Tensors = (activation,)
    watches = [plan.runner.watch(stage) for stage in range(len(plan.stages))]
    with untouched(watches, {activation.device}), unhooked(plan.modules), dropped_tapes():
        for stage, one in enumerate(plan.stages):
            call = plan.runner.call_of(stage, max(0, stage - 1), call)
            run = partial(written(one.block).__call__, one.block)
            subject = subject_of(kinds, one.name, run, flowing, call, watches[stage])
            described = "" if one.link is None else json.dumps(one.link)
            subjects.append(replace(subject, link=described, extra=outside_gradients(call)))
            flowing = plan.runner.run_block(stage, flowing, call, None)
    return subjects


def cut_sections(root: Node) -> list[Node]:
    """Stretches of stages that regions span, in order; a stage that none joins is its own.

    What waits on disk is computed again from the region before it, if the disk loses it: the two
    belong together.
    """
    joined: set[int] = set()  # stages that belong with the one before
    pending = [item for item in root.items if not isinstance(item, int)]
    while pending:
        node = pending.pop()
        joined.update(range(node.start + (node.tier == "ram"), node.stop))
        pending += [item for item in node.items if not isinstance(item, int)]
    bounds = [stage for stage in range(root.start, root.stop) if stage not in joined]
    bounds = [*dict.fromkeys([root.start, *bounds]), root.stop]
    sections: list[Node] = []
    for start, stop in pairwise(bounds):
        items = [
            item
            for item in root.items
            if start <= (item if isinstance(item, int) else item.start) < stop
        ]
        sections.append(Node(start, stop, items=items, spare=root.spare))
    return sections


def _places(stages: Sequence[StageCall]) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for place, one in enumerate(stages):
        places.setdefault(id(one.block), []).append(place)
    return places
