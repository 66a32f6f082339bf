"""A stretch of blocks that has run at once, while the model's own loop is handed through it."""

from dataclasses import dataclass
from typing import Any, NoReturn

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks import (
    Ambient,
    Snapshot,
    ambient,
    generator_state,
    global_generators,
    same_generator_state,
    with_leaves,
)
from thetaone.rematerialization.execution._placeholders import Placeholder
from thetaone.rematerialization.execution._ready_plan import Plan
from thetaone.rematerialization.execution._tree_runner import Execution, Place, Tensors


@dataclass(frozen=True)
class Section:
    """A section that has run at once and is handed through the model's loop.

    Attributes:
        plan: By which it ran.
        stop: One past its last stage.
        execution: What each stage returned, and how it was called.
        tensors: What the last stage returned.
        ambient: Ambient state when it had run.
        generators: States of the random generators, likewise.
        states: Of what each block can reach, likewise, by stage.
    """

    plan: Plan
    stop: int
    execution: Execution
    tensors: Tensors
    ambient: Ambient
    generators: list[Any]
    states: dict[int, Snapshot]


def refuse_between(what: str) -> NoReturn:
    """Say that a loop did something between two blocks that a region spans.

    Raises:
        RecomputationError: Always.
    """
    raise RecomputationError(
        f"{what}: regions span blocks only where the model's loop does nothing in between and "
        "hands every block the same extra arguments. Call rematerialize again with a sample "
        "for which it does this, or name another list with blocks=…"
    )


def require_nothing_between(section: Section, stage: int, before: str) -> None:
    """Refuse a loop that drew or changed something since a section ran.

    Raises:
        RecomputationError: What it did.
    """
    name, device = section.plan.stages[stage].name, section.tensors[0].device
    now = [generator_state(one) for one in global_generators(device)]
    if not all(map(same_generator_state, section.generators, now)):
        refuse_between(f"random numbers are drawn between {before} and {name}")
    if changed := section.ambient.differences(ambient(device)):
        refuse_between(f"{changed[0]} changes between {before} and {name}")
    watch, state = section.plan.runner.watch(stage), section.states[stage]
    if watch.now() is not state and (changed := state.changes()):
        refuse_between(f"{changed[0]} changes between {before} and {name}")


def placeholders(section: Section, stage: int) -> Any:
    """A stage's output with placeholders for its tensors."""
    name = section.plan.stages[stage].name

    def stand_in(leaf: Any) -> Any:
        return Placeholder(section, stage, leaf.index, name) if isinstance(leaf, Place) else leaf

    return with_leaves(section.execution.outputs[stage], stand_in)


def filled(output: Any, tensors: Tensors) -> Any:
    """A stage's output with its tensors."""
    if isinstance(output, Place):
        return tensors[output.index]

    def fill(leaf: Any) -> Any:
        return tensors[leaf.index] if isinstance(leaf, Place) else leaf

    return with_leaves(output, fill)
