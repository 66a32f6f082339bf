"""Long chains of unlike blocks: neighbours planned as one stage, and each such group within itself.

The programme's work grows with the cube of the number of stages. A group of k neighbours is either
taped whole, run without a tape whole, or, where it is reached alone, run by the best schedule of
its own k stages. The schedules so found are persistent schedules of the whole chain; what is given
up is a region that ends inside a group.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import numpy as np

from thetaone.records import Chain
from thetaone.rematerialization.planning._costs import (
    ChainArrays,
    Intervals,
    Ints,
    chain_arrays,
    intervals,
    kinds,
    numbered,
)
from thetaone.rematerialization.planning._levels import Levels
from thetaone.rematerialization.planning._persistent import Table, solve

LEVELS_PER_STAGE = 4, 2  # a tape rounded up to whole levels must not grow by much
OPERATIONS = 2.2e10  # additions that a table may take, half a minute or less
NUMBERS = 1.5e8  # that all layers of a table may hold, 0.6 GB in single precision

T = TypeVar("T")


def table_size(chain: Chain, parts: Intervals, units: int, layers: int = 1) -> tuple[int, int]:
    """Neighbours to plan as one, and memory levels, so that a table stays within bounds.

    Args:
        chain: What each stage costs.
        parts: Its intervals.
        units: Least number of memory levels [count].
        layers: Tables of that size filled side by side [count]: tiers by levels of disk.
    """
    many, few = LEVELS_PER_STAGE
    count = parts.count
    if count <= many * chain.length:  # equal blocks: a step that divides their tapes is found
        many = few
    size, levels = 1, max(units, many * chain.length)
    while count * levels * layers > min(NUMBERS, OPERATIONS / (chain.length / size / 3)):
        least = max(units, few * chain.length // size)
        if levels == least:
            size += 1
            count = numbered(_group_kinds(chain, size)).count
        levels = max(units, few * chain.length // size)
    return size, levels


def solve_grouped(chain: Chain, size: int, levels: Levels) -> Table:
    """The table of a chain with ``size`` neighbours as one stage."""
    costs, parts = groups(chain, size)
    leaves = within_groups(
        chain, size, lambda inner, inner_parts: solve(inner, inner_parts, levels)
    )
    return solve(costs, parts, levels, leaves)


def groups(chain: Chain, size: int) -> tuple[ChainArrays, Intervals]:
    """Costs and intervals with ``size`` neighbours as one stage."""
    coarse = merged(chain_arrays(chain), _bounds(chain, size))
    return coarse, numbered(_group_kinds(chain, size))


def within_groups(
    chain: Chain, size: int, table: Callable[[ChainArrays, Intervals], T]
) -> tuple[T, ...]:
    """The table of the stages of each group; equal groups share one."""
    kind, known = _group_kinds(chain, size), dict[tuple[int, ...], T]()
    for one, (start, stop) in zip(kind, pairwise(_bounds(chain, size)), strict=True):
        if one not in known:
            known[one] = table(*_within(chain, int(start), int(stop)))
    return tuple(known[one] for one in kind)


def _bounds(chain: Chain, size: int) -> Ints:
    return np.append(np.arange(0, chain.length, size), chain.length)


def _group_kinds(chain: Chain, size: int) -> list[tuple[int, ...]]:
    kind = kinds(chain)
    return [tuple(kind[start:stop]) for start, stop in pairwise(_bounds(chain, size))]


def merged(costs: ChainArrays, bounds: Ints) -> ChainArrays:
    """Costs of the groups between bounds: times and tapes add up, needs are those of the worst.

    While stage k of a group runs, the tapes of the group's stages before it are there too.
    """
    starts = bounds[:-1]
    before = np.cumsum(costs.tape) - costs.tape  # tapes of all stages before
    before -= np.repeat(before[starts], np.diff(bounds))
    first = np.repeat(costs.activation[starts], np.diff(bounds))
    first[starts] = 0
    sweep = first + costs.activation[:-1] + costs.activation[1:] + costs.scratch
    ends = costs.activation[starts] + costs.activation[bounds[1:]]
    return ChainArrays(
        forward=np.add.reduceat(costs.forward, starts),
        backward=np.add.reduceat(costs.backward, starts),
        last=np.add.reduceat(costs.forward + costs.backward, starts),
        activation=costs.activation[bounds],
        gradient=costs.gradient[bounds],
        tape=np.add.reduceat(costs.tape, starts),
        scratch=np.maximum.reduceat(sweep, starts) - ends,
        limit_taping=np.maximum.reduceat(before + costs.limit_taping, starts),
        limit_backward=np.maximum.reduceat(before + costs.limit_backward, starts),
        load_seconds=costs.load_seconds,
        longest=len(starts),
    )


def _within(chain: Chain, start: int, stop: int) -> tuple[ChainArrays, Intervals]:
    part = Chain(
        input_bytes=chain.activation_bytes[start],
        stages=chain.stages[start:stop],
        input_requires_grad=chain.gradient_bytes[start] > 0,
        load_seconds=chain.load_seconds,
    )
    costs = chain_arrays(part)
    if stop < chain.length:  # not the chain's own end: a region ends here
        costs.last[-1] -= part.stages[-1].tail_seconds
    return costs, intervals(part)
