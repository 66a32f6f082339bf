"""The intervals of a chain that cost the same, numbered as one.

A planner needs the intervals s … t within a list of blocks, and those from s to the chain's end.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Chain
from thetaone.rematerialization.planning.table._costs import (
    ChainArrays,
    Ints,
    list_starts,
    tail_seconds,
)


@dataclass(frozen=True)
class Intervals:
    """Intervals s … t that cost the same share a class; equal blocks make few classes of many.

    Two numberings, each laid out so that the rows a planner adds are mostly consecutive:
    ``by_start[s, t]`` counts classes by falling s, then rising t; ``by_stop[s, t]`` by rising t,
    then falling s; −1 where no plan needs the interval. ``first[(s, t)]`` of each class are in the
    order of ``by_start``.
    """

    by_start: NDArray[np.int32]
    by_stop: NDArray[np.int32]
    first: list[tuple[int, int]]

    @property
    def count(self) -> int:
        """Number of classes [count]."""
        return len(self.first)

    @property
    def unlike(self) -> bool:
        """Whether no two intervals are alike and all are needed: rows are then consecutive."""
        length = len(self.by_start)
        return self.count == length * (length + 1) // 2


def kinds(chain: Chain) -> list[int]:
    """A number for each stage, the same for stages that cost the same where they stand."""
    gradients, sizes, tails = chain.gradient_bytes, chain.activation_bytes, tail_seconds(chain)
    starts = list_starts(chain) - {0}
    numbers: dict[object, int] = {}
    return [
        numbers.setdefault(
            (stage.costs, stage.recomputable, k in starts, tails[k], sizes[k], gradients[k]),
            len(numbers),
        )
        for k, stage in enumerate(chain.stages)
    ]


def intervals(kind: Sequence[Hashable], list_stop: Ints) -> Intervals:
    """The intervals of stages of these kinds, those that read the same as one.

    Args:
        kind: Of each stage.
        list_stop: One past the last stage of the list that holds each stage.
    """
    length = len(kind)
    by_start = np.full((length, length), -1, dtype=np.int32)
    classes: dict[Hashable, int] = {}  # (class of s … t−1, kind of t), or a list and the rest
    first: list[tuple[int, int]] = []

    run_stop = length  # of the stages from ``start`` that are of one kind
    for start in range(length - 1, -1, -1):
        row, stop = by_start[start], int(list_stop[start])
        if start + 1 < length and kind[start] != kind[start + 1]:
            run_stop = start + 1
        alike = min(run_stop, stop) - 1  # s … t costs what s+1 … t+1 does, for t before it
        shifted = by_start[start + 1, start + 1 : alike + 1] if alike > start else row[:0]
        numbers: list[int] = shifted.tolist()
        for t in range(start + len(numbers), stop):
            key = (numbers[-1] if numbers else -1, kind[t])
            number = classes.get(key)
            if number is None:
                number = classes[key] = len(first)
                first.append((start, t))
            numbers.append(number)
        row[start:stop] = numbers
        if stop < length:
            key = (numbers[-1], "to the end", int(by_start[stop, -1]))
            if key not in classes:
                classes[key] = len(first)
                first.append((start, length - 1))
            row[-1] = classes[key]
    return Intervals(by_start, _renumber(by_start, len(first)), first)


def chain_intervals(chain: Chain, costs: ChainArrays) -> Intervals:
    """The intervals of a chain."""
    return intervals(kinds(chain), costs.list_stop)


def _renumber(by_start: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The same classes numbered by rising stop, then falling start."""
    length = len(by_start)
    order = np.concatenate([by_start[stop::-1, stop] for stop in range(length)])
    order = order[order >= 0]
    _, first_seen = np.unique(order, return_index=True)
    number = np.empty(count + 1, dtype=np.int32)
    number[order[np.sort(first_seen)]] = np.arange(count, dtype=np.int32)
    number[-1] = -1
    return number[by_start]


def rows(
    table: NDArray[np.floating], numbers: NDArray[np.int32], *, even: bool
) -> NDArray[np.floating]:
    """Rows of a table, ``numbers`` all different: a view where they are evenly spaced.

    Args:
        table: One row a class of intervals.
        numbers: At least one.
        even: Whether they are known to be consecutive.
    """
    start, stop, count = int(numbers[0]), int(numbers[-1]), len(numbers)
    step = 1 if stop >= start else -1
    if even or (stop - start == step * (count - 1) and bool((np.diff(numbers) == step).all())):
        end = stop + step
        return table[start : end if end >= 0 else None : step]
    return table[numbers]
