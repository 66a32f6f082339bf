"""How a model is trained beside its optimizer: schedule, clipping, precision, accumulation."""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from thetaone.errors import InputError
from thetaone.records._arguments import did_you_mean
from thetaone.records._base import Record

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
RateSchedule = str | Callable[[int, int], float]

SCHEDULES = ("constant", "warmup-cosine", "warmup-linear", "wsd")
WARMUP = 0.1  # share of the steps, when a schedule's name does not say
DECAY = 0.2  # share of the steps in which ``wsd`` falls
OF_A_FUNCTION = "function"  # name of a schedule that the user wrote


def rate_factor(schedule: str, step: int, n_steps: int) -> float:
    """Factor on the learning rate at one step of a named schedule.

    With W warm-up steps (a share of all, at least one) the factor climbs as (step + 1)/W. Then,
    with u = (step − W)/(n_steps − W) in [0, 1):

    ==================  ===================================================
    ``constant``        1, without warm-up
    ``warmup-cosine``   (1 + cos πu)/2
    ``warmup-linear``   1 − u
    ``wsd``             1, and over the last fifth of all steps linearly to 0
    ==================  ===================================================

    Args:
        schedule: A name, with the share of warm-up after a colon: ``"warmup-cosine:0.1"``.
        step: Steps taken before this one, from 0 [count].
        n_steps: Steps in all [count].

    Returns:
        Factor in (0, 1].

    Raises:
        InputError: The name or the share is not one of a schedule.

    Examples:
        >>> [round(rate_factor("warmup-linear:0.4", step, 5), 3) for step in range(5)]
        [0.5, 1.0, 1.0, 0.667, 0.333]
    """
    name, share = parse_schedule(schedule)
    if name == "constant":
        return 1.0
    warmup = max(1, round(share * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    u = (step - warmup) / max(1, n_steps - warmup)
    if name == "warmup-cosine":
        return (1 + math.cos(math.pi * u)) / 2
    if name == "warmup-linear":
        return 1 - u
    return min(1.0, (n_steps - step) / max(1, round(DECAY * n_steps)))


def parse_schedule(text: str) -> tuple[str, float]:
    """Name and share of warm-up of a named schedule.

    Raises:
        InputError: No such schedule, or a share outside [0, 1).

    Examples:
        >>> parse_schedule("warmup-cosine:0.05")
        ('warmup-cosine', 0.05)
    """
    name, _, share = text.partition(":")
    if name not in SCHEDULES:
        raise InputError(
            f"schedule={text!r}: choose {', '.join(SCHEDULES)} (with the share of warm-up after a "
            "colon: warmup-cosine:0.1), or in the task a function schedule(step, steps) -> factor"
            + did_you_mean(name, SCHEDULES)
        )
    if not share:
        return name, WARMUP
    if not re.fullmatch(r"0?\.\d+|0", share) or name == "constant":
        raise InputError(
            f"schedule={text!r}: the share of warm-up must lie in [0, 1), e.g. warmup-cosine:0.1; "
            "constant takes none"
        )
    return name, float(share)


class TrainingLoop(Record):
    """What happens in every step of a training, beside the optimizer's own update.

    Attributes:
        schedule: Name of the schedule of the learning rate; ``"function"`` for one of the user's.
        factors: Values of a schedule that is a function, at each step; empty for a named one.
        clip: Largest global norm of the gradients; None: not clipped.
        precision: ``"fp32"``, or ``"bf16"``: the loss is computed under autocast.
        accumulate: Parts into which a batch is split, whose gradients are added [count].
    """

    schedule: str = "constant"
    factors: tuple[float, ...] = ()
    clip: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    precision: Precision = "fp32"
    accumulate: int = Field(default=1, ge=1)

    @property
    def plain(self) -> bool:
        """Whether a step is forward, backward and the optimizer's update, and nothing else."""
        return self == TrainingLoop()

    def factor(self, step: int, n_steps: int) -> float:
        """Factor on the learning rate at a step, counted from 0.

        Raises:
            InputError: A schedule that is a function was tabulated for another number of steps.
        """
        if self.schedule != OF_A_FUNCTION:
            return rate_factor(self.schedule, step, n_steps)
        if len(self.factors) != n_steps:
            raise InputError(
                f"the schedule was tabulated for {len(self.factors)} steps and {n_steps} are "
                "trained: build the loop with training_loop(..., n_steps=...)"
            )
        return self.factors[step]

    def __str__(self) -> str:
        """What differs from a plain loop, for the end of a line; empty when nothing does."""
        said = {name: value for name, value in self if value != getattr(TrainingLoop(), name)}
        said.pop("factors", None)
        return "".join(f", {name} {value}" for name, value in said.items())


def training_loop(
    *,
    n_steps: int,
    schedule: RateSchedule = "constant",
    clip: float | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
) -> TrainingLoop:
    """The loop of a training of so many steps, every choice checked.

    Args:
        n_steps: Steps of the training [count].
        schedule: A name, or ``schedule(step, steps) -> factor``.
        clip: Largest global norm of the gradients, > 0.
        precision: ``"fp32"`` or ``"bf16"``.
        accumulate: Parts of a batch, at least 1 [count].

    Raises:
        InputError: A choice out of its range, or a schedule whose factor is not a finite number
            of 0 or more.

    Examples:
        >>> training_loop(n_steps=4, schedule=lambda step, steps: 1 - step / steps).factors
        (1.0, 0.75, 0.5, 0.25)
    """
    norm = None if clip is None else _number(clip)
    if norm is not None and not 0 < norm < math.inf:
        raise InputError(f"clip={clip!r}: need a norm > 0, e.g. 1.0; leave it out not to clip")
    if precision not in PRECISIONS:
        raise InputError(
            f"precision={precision!r}: choose {' or '.join(PRECISIONS)}"
            + did_you_mean(str(precision), PRECISIONS)
        )
    parts = _number(accumulate)
    if not 1 <= parts < math.inf or parts % 1:
        raise InputError(f"accumulate={accumulate!r}: need a whole number of 1 or more")
    name, factors = _schedule(schedule, n_steps)
    return TrainingLoop(
        schedule=name, factors=factors, clip=norm, precision=precision,
        accumulate=int(parts),
    )  # fmt: skip


def _number(value: Any) -> float:
    """A number of any library as Python's; NaN for what is none, a truth value or a text."""
    if isinstance(value, str | bytes | bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _schedule(schedule: RateSchedule, n_steps: int) -> tuple[str, tuple[float, ...]]:
    if isinstance(schedule, str):
        parse_schedule(schedule)
        return schedule, ()
    if not callable(schedule):
        raise InputError(
            f"schedule={schedule!r}: pass a name such as warmup-cosine:0.1, or a function "
            "schedule(step, steps) -> factor"
        )
    return OF_A_FUNCTION, tuple(_factor(schedule, step, n_steps) for step in range(n_steps))


def _factor(schedule: Callable[[int, int], float], step: int, n_steps: int) -> float:
    """The factor of a user's function at one step."""
    try:
        factor = schedule(step, n_steps)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"schedule({step}, {n_steps}) raised {type(error).__name__}: {error}. It is called "
            "with the step, from 0, and the steps in all; write def schedule(step, steps)"
        ) from error
    value = _number(factor)
    if not 0 <= value < math.inf:
        raise InputError(
            f"schedule({step}, {n_steps}) returned {factor!r}: return a finite factor of 0 or more "
            "on the learning rate"
        )
    return value
