"""Tries a task at every width before anything is trained: what is wrong is an error here."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch

from thetaone.errors import InputError, MismatchError, TaskError, first_line
from thetaone.records import AxisValues, TrialSpec
from thetaone.sweeps._trials import Work, build_model
from thetaone.sweeps.identity._start import Place, Start, place_of, start_of


class UncountedModelWarning(UserWarning):
    """A model's size could not be told before it is built."""


Starts = Mapping[Place, Start]

SAME = 1e-3  # relative: kernels that add in another order change a loss by less
WORTH_COUNTING = 0.1  # share of the memory from which on a model is counted before it is built


def check_task(
    work: Work, specs: Sequence[TrialSpec], *, task_name: str, every_seed: bool
) -> Starts:
    """What the trials of each width and seed start from.

    The narrowest width is built twice, to see whether the task repeats.

    Args:
        work: What is trained.
        specs: The sweep's trials.
        task_name: For messages.
        every_seed: Whether each seed's start is wanted, or the first that works of each width.

    Returns:
        Width, depth and seed -> start.

    Raises:
        TaskError: A part of the task raises or returns the wrong thing, or does not repeat.
        MismatchError: Two widths give the same model.
        InputError: A model is larger than the machine's memory.
    """
    starts: dict[Place, Start] = {}
    of_shapes: dict[tuple[tuple[int, ...], ...], str] = {}
    for of_seeds in _by_size(specs):
        for spec, start in _started(work, of_seeds, starts, task_name, every_seed):
            size = f"width={spec.width}" + ("" if spec.depth is None else f", depth={spec.depth}")
            other = of_shapes.setdefault(start.shapes, size)
            if other != size:
                raise MismatchError(
                    f"model({size}) of task {task_name} has the same shapes as model({other}): "
                    "make model use its width and depth"
                )
            starts[place_of(spec)] = start
    return starts


def _by_size(specs: Sequence[TrialSpec]) -> list[list[TrialSpec]]:
    """A spec of each start, by size and axes, narrowest first and in order of the seeds."""
    groups: dict[tuple[object, ...], list[TrialSpec]] = {}
    for place in sorted(one_each := {place_of(spec): spec for spec in specs}, key=_in_order):
        groups.setdefault(_in_order(place)[:-1], []).append(one_each[place])
    return list(groups.values())


def _in_order(place: Place) -> tuple[int, int, AxisValues, int]:
    return (place.width, place.depth or 0, place.axes, place.seed)


def _started(
    work: Work, of_seeds: Sequence[TrialSpec], starts: Starts, task_name: str, every_seed: bool
) -> Iterator[tuple[TrialSpec, Start]]:
    """The starts of one size: of every seed that has one, or of the first.

    A seed whose start fails has failed trials; where all of them do, the task is at fault.
    """
    errors: list[TaskError] = []
    for spec in of_seeds:
        _require_room(work, spec, starts, task_name)
        try:
            start = start_of(work, spec, task_name=task_name)
        except TaskError as error:
            errors.append(error)
            continue
        if not starts:
            _require_repeats(start, start_of(work, spec, task_name=task_name), spec, task_name)
        yield spec, start
        if not every_seed:
            return
    if len(errors) == len(of_seeds):
        raise errors[0]


def _require_repeats(first: Start, second: Start, spec: TrialSpec, task_name: str) -> None:
    losses = zip(first.losses, second.losses, strict=True)
    equal = all(
        a == b or (a != a and b != b) or abs(a - b) <= SAME * max(1.0, abs(a)) for a, b in losses
    )
    if first.digest == second.digest and equal:
        return
    what = "weights, batches or hooks" if first.digest != second.digest else "losses"
    raise TaskError(
        f"task {task_name} does not repeat: built twice at width {spec.width}, seed {spec.seed}, "
        f"it gave different {what}, so its rates cannot be compared. Draw from the global "
        "generators of torch, NumPy or Python (they are seeded), or from generators made from the "
        "seed, and return a fresh model from every call of model(width)"
    )


def _require_room(work: Work, spec: TrialSpec, starts: Starts, task_name: str) -> None:
    """Refuse a model whose weights alone exceed the memory, before the kernel ends the process.

    Counted on the meta device, and only where narrower models leave doubt; a task that cannot be
    built there is built as it is, which a warning says.
    """
    room = _memory_bytes()
    if room is None:
        return
    bound = min(
        (4 * _count(start) * (spec.width / place.width) ** 2 for place, start in starts.items()),
        default=4.0 * spec.width**2,
    )
    if bound < WORTH_COUNTING * room:
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build_model(work.task, spec)
            weights = sum(p.numel() * p.element_size() for p in model.parameters())
    except Exception as error:  # the user's code may raise anything
        warnings.warn(
            f"width={spec.width}: the weights of task {task_name} may take {bound:,.0f} bytes of "
            f"the {room:,} of this machine, and could not be counted before they are built: on the "
            f"meta device model raised {type(error).__name__}: {first_line(error)}",
            UncountedModelWarning,
            stacklevel=2,
        )
        return
    if weights > room:
        raise InputError(
            f"width={spec.width}: the weights of task {task_name} take {weights:,} bytes, more "
            f"than the {room:,} of this machine; pass smaller widths"
        )


def _count(start: Start) -> int:
    return sum(int(torch.Size(shape).numel()) for shape in start.shapes)


def _memory_bytes() -> int | None:
    """Memory of the machine [bytes]; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
