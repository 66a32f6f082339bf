"""Where no region may span two blocks, and why."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from thetaone.rematerialization.blocks import Blocks
from thetaone.rematerialization.profiling._measure import Sizes
from thetaone.rematerialization.profiling._subject import Subject

MUCH = 0.25  # of a tape


def kept_bytes(sizes: Sequence[Sizes]) -> int:
    """Bytes that forwards keep which write no tape, in the step and in a region of all blocks.

    What blocks leave for others is not the chain's; where they keep much, no region spans two.
    """
    return sum(size.hidden * (1 if _is_much(size) else 2) for size in sizes)


def with_joints(subjects: Sequence[Subject], sizes: Sequence[Sizes]) -> list[Subject]:
    """Subjects that also say why no region may span blocks that keep what they compute."""
    return [
        replace(one, joint=one.joint or (_keeping(place, subjects, sizes) if place else ""))
        for place, one in enumerate(subjects)
    ]


def _keeping(place: int, subjects: Sequence[Subject], sizes: Sequence[Sizes]) -> str:
    """Why no region may span a block and the one before, if either keeps what it computes.

    Each execution keeps it anew: a region that runs several without a tape would hold all at once.
    """
    for one, size in zip(
        subjects[place - 1 : place + 1], sizes[place - 1 : place + 1], strict=True
    ):
        if _is_much(size):
            return f"{one.name} keeps tensors of each of its forwards"
    return ""


def _is_much(size: Sizes) -> bool:
    return size.left + size.hidden > MUCH * size.tape


def why_separate(subjects: list[Subject]) -> str:
    """Why no region may span two blocks; empty when one may."""
    reasons = [one.joint for one in subjects[1:]]
    return next(filter(None, reasons), "") if all(reasons) else ""


def list_starts(subjects: list[Subject]) -> tuple[int, ...]:
    """Where no region may span a stage and the one before it, if regions may span others."""
    if why_separate(subjects):
        return ()
    return tuple(place for place, one in enumerate(subjects) if place and one.joint)


def warn_of_joints(blocks: Blocks, subjects: list[Subject]) -> None:
    """Say where no region may span two blocks of one list, and why."""
    reasons = [
        after.joint
        for before, after in pairwise(subjects)
        if after.joint and _list_of(blocks, before.name) == _list_of(blocks, after.name)
    ]
    if reasons:
        where = "" if len(reasons) == len(subjects) - 1 else f" at {len(reasons)} places"
        warnings.warn(
            f"{reasons[0]}: no region will span two blocks{where}, they are recomputed one by one",
            RuntimeWarning,
            stacklevel=3,
        )


def _list_of(blocks: Blocks, name: str) -> str:
    return max(
        (one for one in blocks.lists if not one or name.startswith(f"{one}.")), key=len, default=""
    )
