"""Long chains of unlike blocks: neighbours planned as one stage, and each such group within itself.

The programme's work grows with the cube of the number of stages. A group of k neighbours is either
taped whole, run without a tape whole, or, where it is reached alone, run by the best schedule of
its own k stages. The schedules so found are persistent schedules of the whole chain; what is given
up is a region that ends inside a group.
"""

from itertools import pairwise

import numpy as np

from thetaone.records.chain import Chain
from thetaone.rematerialization.costs import ChainArrays, Intervals, Ints, chain_arrays, intervals
from thetaone.rematerialization.levels import Levels
from thetaone.rematerialization.persistent import Table, solve

LEVELS_PER_STAGE = 4, 2  # a tape rounded up to whole levels must not grow by much
OPERATIONS = 2.2e10  # additions that a table may take, half a minute or less


def table_size(parts: Intervals, length: int, units: int) -> tuple[int, int]:
    """Neighbours to plan as one, and memory levels, so that a table takes at most ``OPERATIONS``.

    Args:
        parts: Intervals of the chain: equal blocks make few of them.
        length: Stages [count].
        units: Least number of memory levels [count].
    """
    many, few = LEVELS_PER_STAGE
    if parts.count <= many * length:  # equal blocks: a step that divides their tapes is found
        many = few
    size, levels = 1, max(units, many * length)
    while parts.count * length / size**3 / 3 * levels > OPERATIONS:
        size += levels == max(units, few * length // size)
        levels = max(units, few * length // size)
    return size, levels


def solve_grouped(chain: Chain, size: int, levels: Levels) -> Table:
    """The table of a chain with ``size`` neighbours as one stage."""
    costs = chain_arrays(chain)
    bounds = np.append(np.arange(0, chain.length, size), chain.length)
    coarse = merged(costs, bounds)
    leaves = tuple(_leaf(chain, int(start), int(stop), levels) for start, stop in pairwise(bounds))
    return solve(coarse, _unlike(len(leaves)), levels, leaves)


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


def _leaf(chain: Chain, start: int, stop: int, levels: Levels) -> Table:
    part = Chain(
        input_bytes=chain.activation_bytes[start],
        stages=chain.stages[start:stop],
        input_requires_grad=chain.gradient_bytes[start] > 0,
        load_seconds=chain.load_seconds,
    )
    costs = chain_arrays(part)
    if stop < chain.length:  # not the chain's own end: a region ends here
        costs.last[-1] -= part.stages[-1].tail_seconds
    return solve(costs, intervals(part), levels)


def _unlike(length: int) -> Intervals:
    """Every interval of so many stages a class of its own."""
    first = [(s, t) for s in range(length - 1, -1, -1) for t in range(s, length)]
    starts, stops = np.array(first).T
    by_start = np.full((length, length), -1, dtype=np.int32)
    by_start[starts, stops] = np.arange(len(first), dtype=np.int32)
    order = np.lexsort((-starts, stops))
    by_stop = np.full((length, length), -1, dtype=np.int32)
    by_stop[starts[order], stops[order]] = np.arange(len(first), dtype=np.int32)
    return Intervals(by_start, by_stop, first)
