"""A chain as arrays, and the intervals of it that cost the same."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Chain

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ChainArrays:
    """Costs by stage; ``activation`` and ``gradient`` have one entry more (A_0 … A_L).

    ``limit_taping[s]`` + gradient of the interval's end, and ``limit_backward[s]``, are the bytes
    that stage s needs beyond its input while it writes its tape and while it runs backward.
    ``last`` is the time of a stage, forward and backward, as the last one of its region;
    ``longest`` is the most stages that a region may have.
    """

    forward: NDArray[np.float64]
    backward: NDArray[np.float64]
    last: NDArray[np.float64]
    activation: Ints
    gradient: Ints
    tape: Ints
    scratch: Ints
    limit_taping: Ints
    limit_backward: Ints
    load_seconds: float
    longest: int

    @property
    def length(self) -> int:
        """Number of stages [count]."""
        return len(self.forward)

    def sweep_limits(self, start: int) -> Ints:
        """Bytes to run ``start … j−1`` without a tape, j = start+1 … L; input and gradient apart.

        ``max(A_{s+1} + x_s, max_{s<k<j} A_k + A_{k+1} + x_k)``; it never falls as j grows.
        """
        live = self.activation[start:-1] + self.activation[start + 1 :] + self.scratch[start:]
        live[0] -= self.activation[start]
        return np.maximum.accumulate(live)


def chain_arrays(chain: Chain) -> ChainArrays:
    """The costs of a chain as arrays."""
    stages = chain.stages
    gradient = np.array(chain.gradient_bytes, dtype=np.int64)
    tape = np.array([stage.tape_bytes for stage in stages], dtype=np.int64)
    forward = np.array([stage.forward_seconds for stage in stages])
    backward = np.array([stage.backward_seconds for stage in stages])
    return ChainArrays(
        forward=forward,
        backward=backward,
        last=forward + backward - _tails(chain),
        activation=np.array(chain.activation_bytes, dtype=np.int64),
        gradient=gradient,
        tape=tape,
        scratch=np.array([stage.forward_scratch_bytes for stage in stages], dtype=np.int64),
        limit_taping=tape + np.array([stage.taping_bytes for stage in stages], dtype=np.int64),
        limit_backward=gradient[:-1]
        + gradient[1:]
        + tape
        + np.array([stage.backward_scratch_bytes for stage in stages], dtype=np.int64),
        load_seconds=chain.load_seconds,
        longest=1 if chain.separate else chain.length,
    )


@dataclass(frozen=True)
class Intervals:
    """Intervals s … t that cost the same share a class; equal blocks make few classes of many.

    Two numberings, each laid out so that the rows a planner adds are mostly consecutive:
    ``by_start[s, t]`` counts classes by falling s, then rising t; ``by_stop[s, t]`` by rising t,
    then falling s. ``first[(s, t)]`` of each class are in the order of ``by_start``.
    """

    by_start: NDArray[np.int32]
    by_stop: NDArray[np.int32]
    first: list[tuple[int, int]]

    @property
    def count(self) -> int:
        """Number of classes [count]."""
        return len(self.first)


def intervals(chain: Chain) -> Intervals:
    """Number the intervals of a chain by what they cost.

    Where no region may span two stages, only those of one stage and those to the end are needed.
    """
    return _separate_intervals(chain.length) if chain.separate else numbered(kinds(chain))


def kinds(chain: Chain) -> list[int]:
    """A number for each stage, the same for stages that cost the same where they stand."""
    gradients, sizes, tails = chain.gradient_bytes, chain.activation_bytes, _tails(chain)
    known: dict[object, int] = {}
    return [
        known.setdefault((stage.costs, tails[k], sizes[k], gradients[k]), len(known))
        for k, stage in enumerate(chain.stages)
    ]


def numbered(kind: Sequence[Hashable]) -> Intervals:
    """The intervals of stages of these kinds, those that read the same as one."""
    length = len(kind)
    by_start = np.full((length, length), -1, dtype=np.int32)
    classes: dict[tuple[int, Hashable], int] = {}  # (class of s … t−1, kind of t) -> of s … t
    first: list[tuple[int, int]] = []
    for start in range(length - 1, -1, -1):
        row, current = by_start[start], -1
        for stop in range(start, length):
            key = (current, kind[stop])
            found = classes.get(key)
            if found is None:
                found = classes[key] = len(first)
                first.append((start, stop))
            row[stop] = current = found
    return Intervals(by_start, _renumber(by_start, len(first)), first)


def _separate_intervals(length: int) -> Intervals:
    last = length - 1
    first = [(s, t) for s in range(last, -1, -1) for t in sorted({s, last})]
    numbers = np.full((length, length), -1, dtype=np.int32)
    for number, (s, t) in enumerate(first):
        numbers[s, t] = number
    return Intervals(numbers, numbers, first)


def _tails(chain: Chain) -> NDArray[np.float64]:
    """What each stage saves as the last one of a region; the chain's own last stage is in none."""
    tails = np.array([stage.tail_seconds for stage in chain.stages])
    tails[-1] = 0.0
    return tails


def _renumber(by_start: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The same classes numbered by rising stop, then falling start."""
    length = len(by_start)
    order = np.concatenate([by_start[stop::-1, stop] for stop in range(length)])
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
