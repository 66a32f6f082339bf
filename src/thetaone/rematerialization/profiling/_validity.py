"""Whether what was measured or planned before still applies to a model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from thetaone.errors import ProfileError, ScheduleError
from thetaone.records import Chain, Schedule
from thetaone.rematerialization.blocks import (
    Blocks,
    as_written,
    describe_parameters,
    find_blocks,
)
from thetaone.rematerialization.profiling._capture import called_again
from thetaone.rematerialization.profiling._profile import captured, describe, isolated, require_call


def require_current(
    chain: Chain,
    model: nn.Module,
    *inputs: Any,
    blocks: str | Sequence[str] | None = None,
    forward: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> None:
    """Refuse a profile of another model, input, device or number of threads.

    One forward without a tape finds what the profile would be of today; nothing is timed.

    Args:
        chain: A profile made before, e.g. ``Chain.from_json(text)``.
        model: The model that it is to be used for.
        inputs: What the model is called with.
        blocks: As for ``profile``.
        forward: As for ``profile``.
        kwargs: Keyword arguments of the model.

    Raises:
        ProfileError: It is stale, or was written by hand; every difference is named.
    """
    require_call(model, forward, inputs, kwargs)
    run = partial(forward or nn.Module.__call__, model, *inputs, **kwargs)
    with as_written(model), isolated(model, (inputs, kwargs)):
        chosen = find_blocks(model, blocks, partial(called_again, model, run))
        subjects = captured(chosen, run)
    today = describe(type(model).__name__, subjects)
    changed = [
        f"{name} was {chain.context.get(name, 'not noted')}, is {value}"
        for name, value in today.items()
        if chain.context.get(name) != value
    ]
    if changed:
        raise ProfileError(f"the profile is stale: {'; '.join(changed)}. Profile this model anew")


def require_same_blocks(schedule: Schedule, blocks: Blocks, *, some: bool = False) -> None:
    """Refuse a schedule for other blocks; one for a chain written by hand names none.

    ``some`` allows that the forward that was measured left blocks out.

    Raises:
        ScheduleError: Another number of blocks, or other parameters.
    """
    names = set(schedule.stages)
    count = len(names) if names & set(blocks.names) else schedule.length
    if len(blocks.modules) != count and not (some and names < set(blocks.names)):
        raise ScheduleError(
            f"the schedule has {schedule.length} stages and the model {len(blocks.modules)} blocks "
            f"({blocks.names[0]} … {blocks.names[-1]}): profile and plan this model"
        )
    measured = [one for name, one in blocks.pairs if not some or name in names]
    parameters = describe_parameters(measured)
    if schedule.parameters not in ("", parameters):
        raise ScheduleError(
            f"the schedule was made for blocks of {schedule.parameters} parameters and these have "
            f"{parameters}: profile and plan this model"
        )
