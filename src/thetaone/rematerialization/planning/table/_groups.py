"""Long chains of unlike blocks: neighbours planned as one stage, and each such group within itself.

The programme's work grows with the cube of the number of stages. A group of k neighbours is either
taped whole, run without a tape whole, or, where it is reached alone, run by the best schedule of
its own k stages. The schedules so found are persistent schedules of the whole chain; what is given
up is a region that ends inside a group.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from thetaone.records import Chain, DiskCost
from thetaone.rematerialization.planning.table._costs import ChainArrays, Ints, chain_arrays
from thetaone.rematerialization.planning.table._fill import solve
from thetaone.rematerialization.planning.table._intervals import (
    Intervals,
    chain_intervals,
    intervals,
    kinds,
)
from thetaone.rematerialization.planning.table._levels import Levels
from thetaone.rematerialization.planning.table._problem import problem
from thetaone.rematerialization.planning.table._table import Table

LEVELS_PER_STAGE = 2  # a tape rounded up to whole levels must not grow by much
OPERATIONS = 4e9  # additions that a table may take: a few seconds
NUMBERS = 1.2e8  # that a table may hold while it is filled: 0.5 GB in single precision
CHEAP = 2e7, 5e6  # additions and numbers spent on finer levels where a chain is short
EXACT = 1.5e8, 3e7  # the same, spent to round nothing at all


@dataclass(frozen=True)
class TableSize:
    """How large a table may be.

    Attributes:
        together: Neighbours to plan as one stage [count].
        costs: Of these groups.
        parts: Their intervals.
        levels: Of memory, if sizes are rounded [count].
        most: Of memory, if nothing is [count].
    """

    together: int
    costs: ChainArrays
    parts: Intervals
    levels: int
    most: int


def additions(costs: ChainArrays, parts: Intervals) -> int:
    """Additions that one level of a table takes, of one tier [count]."""
    firsts = np.array(parts.first)
    return int((np.minimum(firsts[:, 1], costs.reach[firsts[:, 0]]) - firsts[:, 0] + 1).sum())


def table_size(chain: Chain, units: int, layers: int = 1) -> TableSize:
    """The size that keeps a table within bounds of time and memory.

    Args:
        chain: What each stage costs.
        units: Least number of memory levels [count].
        layers: Tables of that size filled side by side [count]: tiers by levels of disk.
    """
    size, length = 1, 0
    while True:
        costs, parts = groups(chain, size)
        rows, work = (layers + 1) * parts.count, layers * additions(costs, parts)

        def within(limits: tuple[float, float], rows: int = rows, work: int = work) -> int:
            return int(min(limits[0] / work, limits[1] / rows))

        levels = max(units, LEVELS_PER_STAGE * costs.length)
        if levels <= within((OPERATIONS, NUMBERS)):
            return TableSize(size, costs, parts, max(levels, within(CHEAP)), within(EXACT))
        if costs.length == length:  # every list is one group by now
            return TableSize(size, costs, parts, units, 0)
        size, length = size + 1, costs.length


def solve_grouped(
    chain: Chain,
    size: int,
    levels: Levels,
    *,
    disk: DiskCost | None = None,
    disk_levels: Ints | None = None,
    grouped: tuple[ChainArrays, Intervals] | None = None,
) -> Table:
    """The table of a chain with ``size`` neighbours as one stage.

    Args:
        chain: What each stage costs.
        size: Neighbours to plan as one [count].
        levels: Of memory.
        disk: What transfers cost, if there is a disk.
        disk_levels: Of disk; None is no limit.
        grouped: Costs and intervals of the groups, where they are at hand.
    """
    costs, parts = grouped or groups(chain, size)
    if size == 1:
        return solve(problem(costs, parts, levels, disk=disk, disk_levels=disk_levels))
    tables: dict[tuple[int, ...], Table] = {}
    bounds = _bounds(chain_arrays(chain), size)
    keys = _group_kinds(chain, bounds)
    for key, (start, stop) in zip(keys, pairwise(bounds.tolist()), strict=True):
        if key not in tables:
            inner = _within(chain, start, stop)
            tables[key] = solve(problem(*inner, levels, disk=disk, disk_levels=disk_levels))
    leaves = tuple(tables[key] for key in keys)
    return solve(problem(costs, parts, levels, disk=disk, disk_levels=disk_levels), leaves)


def groups(chain: Chain, size: int) -> tuple[ChainArrays, Intervals]:
    """Costs and intervals with ``size`` neighbours as one stage."""
    costs = chain_arrays(chain)
    if size == 1:
        return costs, chain_intervals(chain, costs)
    bounds = _bounds(costs, size)
    merged = merge(costs, bounds)
    return merged, intervals(_group_kinds(chain, bounds), merged.list_stop)


def _bounds(costs: ChainArrays, size: int) -> Ints:
    """Where groups begin, and the end: each list is cut into groups by itself."""
    stops = np.unique(costs.list_stop)
    starts = np.concatenate([[0], stops[:-1]])
    cuts = [np.arange(start, stop, size) for start, stop in zip(starts, stops, strict=True)]
    return np.concatenate([*cuts, [costs.length]])


def _group_kinds(chain: Chain, bounds: Ints) -> list[tuple[int, ...]]:
    kind = kinds(chain)
    return [tuple(kind[start:stop]) for start, stop in pairwise(bounds.tolist())]


def merge(costs: ChainArrays, bounds: Ints) -> ChainArrays:
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
        reach=np.searchsorted(bounds, costs.reach[starts]),
        list_stop=np.searchsorted(bounds, costs.list_stop[starts]),
    )


def _within(chain: Chain, start: int, stop: int) -> tuple[ChainArrays, Intervals]:
    """Costs and intervals of a part of a chain that lies in one list."""
    part = Chain(
        input_bytes=chain.activation_bytes[start],
        stages=chain.stages[start:stop],
        input_requires_grad=chain.gradient_bytes[start] > 0,
        load_seconds=chain.load_seconds,
    )
    costs = chain_arrays(part)
    if stop < chain.length:  # not the chain's own end: a region ends here
        costs.last[-1] -= part.stages[-1].tail_seconds
    return costs, chain_intervals(part, costs)
