"""The planner over memory and disk, against exhaustive search and published numbers."""

import functools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import Chain, DiskCost, Region, Schedule, Stage, Tier
from thetaone.rematerialization import Planner, plan, simulate, store_all
from thetaone.rematerialization.planning._policies import judged
from thetaone.rematerialization.planning.table import (
    Levels,
    chain_arrays,
    chain_intervals,
    problem,
    solve,
    solve_grouped,
)

Family = tuple[tuple[int, int, Tier], ...]


@functools.cache
def inside(start: int, stop: int, span: tuple[int, int] = (-1, -1)) -> tuple[Family, ...]:
    """Every way to run ``start … stop−1``: stages taped, or in regions of either tier.

    ``span`` is the surrounding region, which cannot hold itself.
    """
    if start == stop:
        return ((),)
    found = list(inside(start + 1, stop, span))
    tiers: tuple[Tier, Tier] = ("ram", "disk")
    for end in range(start + 1, stop + 1):
        if (start, end) != span:
            within, after = inside(start, end, (start, end)), inside(end, stop, span)
            regions: list[Family] = [((start, end, tier),) for tier in tiers]
            found += [region + one + rest for region in regions for one in within for rest in after]
    return tuple(found)


def draft(length: int, family: Family) -> Schedule:
    regions = tuple(Region(start=a, stop=b, tier=tier) for a, b, tier in family)
    return Schedule(
        length=length,
        regions=regions,
        total_seconds=0.0,
        peak_bytes=0,
        forwards=0,
        loads=0,
        policy="some",
    )


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    small = st.integers(0, 3)
    stages = [
        Stage(
            name=f"stage {k}",
            forward_seconds=(forward := draw(st.integers(1, 6))),
            tail_seconds=draw(st.integers(0, forward)),
            backward_seconds=draw(st.integers(0, 6)),
            output_bytes=draw(st.integers(1, 4)),
            tape_bytes=draw(st.integers(0, 8)),
            forward_scratch_bytes=draw(small),
            backward_scratch_bytes=draw(small),
        )
        for k in range(draw(st.integers(1, 4)))
    ]
    return Chain(
        input_bytes=draw(st.integers(0, 4)),
        stages=tuple(stages),
        load_seconds=draw(st.sampled_from([0.0, 1.0])),
    )


disks = st.builds(
    DiskCost,
    write_bytes_per_second=st.sampled_from([1.0, 2.0, 8.0]),
    read_bytes_per_second=st.sampled_from([1.0, 2.0, 8.0]),
    file_seconds=st.sampled_from([0.0, 0.25]),
    quota_bytes=st.none() | st.integers(0, 8),
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(chains(), disks)
def test_plan_is_the_best_of_all_two_tier_schedules(chain: Chain, disk: DiskCost) -> None:
    hold_against(chain, disk, inside(0, chain.length))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(chains().filter(lambda one: one.length > 1), disks, st.integers(1, 3))
def test_what_enters_a_further_list_never_waits_on_disk(
    chain: Chain, disk: DiskCost, start: int
) -> None:
    start = min(start, chain.length - 1)
    families = [
        family
        for family in inside(0, chain.length)
        if not any(a < start < b or (a == start and tier == "disk") for a, b, tier in family)
    ]
    hold_against(chain.model_copy(update={"lists": (start,)}), disk, families)


def hold_against(chain: Chain, disk: DiskCost, families: Sequence[Family]) -> None:
    """Plans under every budget are as fast as the fastest of all schedules that fit."""
    unlimited = disk.model_copy(update={"quota_bytes": None})
    costs = [simulate(chain, draft(chain.length, one), disk=unlimited) for one in families]
    quota = disk.quota_bytes
    points = [
        (cost.peak_bytes, cost.total_seconds)
        for cost in costs
        if quota is None or cost.disk_bytes <= quota
    ]
    planner = Planner(chain, disk=disk)
    floor = min(peak for peak, _ in points)
    for budget in range(1, planner.store_all.peak_bytes + 2):
        if budget < floor:
            with pytest.raises(BudgetTooSmallError, match=f"{floor:,} bytes"):
                planner.plan(budget)
            continue
        planned = planner.plan(budget)
        judge = simulate(chain, planned, budget_bytes=budget, disk=disk)
        best = min(seconds for peak, seconds in points if peak <= budget)
        assert planned.total_seconds == judge.total_seconds == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("length", "slots"), [(5, 1), (12, 2), (20, 3), (30, 2)])
@pytest.mark.parametrize("transfer", [1.0, 3.0, 7.0])
def test_equal_stages_cost_what_disk_revolve_says(length: int, slots: int, transfer: float) -> None:
    sequences = pytest.importorskip("checkpoint_schedules.hrevolve_sequences.disk_revolve")
    # the published recurrence taking its input in a slot or on disk, a taped step costing ub
    published = sequences.get_opt_inf_table(
        length - 1, slots, 1.0, 1.0, transfer, transfer, one_read_disk=False
    )
    stage = Stage(
        name="step", forward_seconds=0.5, backward_seconds=0.5, output_bytes=1, tape_bytes=1000
    )
    half = Chain(input_bytes=1, stages=(stage,) * length)
    costs = chain_arrays(half)
    costs.forward[:] = 1.0
    costs.backward[:] = 0.0
    costs.last[:] = 1.0
    # the input of the step being taped is counted here and is no slot there
    room = int(costs.limit_backward[0])
    levels = Levels(np.arange(room + slots + 2))
    disk = DiskCost(write_bytes_per_second=1 / transfer, read_bytes_per_second=1 / transfer)
    table = solve(problem(costs, chain_intervals(half, costs), levels, disk=disk))
    in_slot = table.whole("ram")[0, room + slots]
    on_disk = transfer + table.whole("disk")[0, room + slots + 1]
    assert min(in_slot, on_disk) == pytest.approx(float(published[length - 1]))


def test_a_disk_never_makes_a_plan_slower_and_a_quota_is_kept() -> None:
    stage = Stage(
        name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=4, tape_bytes=32
    )
    chain = Chain(input_bytes=4, stages=(stage,) * 12)
    free = DiskCost(write_bytes_per_second=40.0, read_bytes_per_second=40.0)
    few = free.model_copy(update={"quota_bytes": 12})
    for budget in (60, 80, 120, 200):
        alone, limited, open_ = (plan(chain, budget, disk=disk) for disk in (None, few, free))
        assert open_.total_seconds <= limited.total_seconds <= alone.total_seconds
        assert limited.disk_bytes <= 12
        assert open_.peak_bytes <= budget
    assert plan(chain, 60, disk=free).total_seconds < plan(chain, 60).total_seconds


@pytest.mark.parametrize("quota", [None, 40])
@pytest.mark.parametrize(("size", "loss"), [(1, 0.0), (2, 0.05), (3, 0.08)])
def test_neighbours_planned_as_one_with_a_disk(size: int, loss: float, quota: int | None) -> None:
    """Grouped plans are the schedules that their table prices, fit, and lose a few percent."""
    draw = random.Random(1)
    stages = tuple(
        Stage(
            name=f"s{k}",
            forward_seconds=draw.uniform(1, 2),
            tail_seconds=draw.uniform(0, 0.4),
            backward_seconds=draw.uniform(1, 4),
            output_bytes=draw.randint(4, 8),
            tape_bytes=draw.randint(20, 40),
        )
        for k in range(20)
    )
    chain = Chain(input_bytes=6, stages=stages)
    levels = Levels(np.arange(store_all(chain).peak_bytes + 1))
    disk = DiskCost(write_bytes_per_second=20.0, read_bytes_per_second=20.0, file_seconds=0.01)
    rows = np.zeros(1, dtype=np.int64) if quota is None else np.arange(quota + 1)
    exact, table = (
        solve_grouped(chain, together, levels, disk=disk, disk_levels=rows)
        for together in (1, size)
    )
    best, found = exact.whole()[-1], table.whole()[-1]
    used = 0
    for level in range(110, levels.count, 20):
        made = judged(chain, table.regions(len(rows) - 1, level), policy="grouped", disk=disk)
        assert made.peak_bytes <= levels.values[level]
        assert quota is None or made.disk_bytes <= quota
        assert made.total_seconds == pytest.approx(found[level])
        assert best[level] * (1 - 1e-9) <= made.total_seconds <= (1 + loss + 1e-9) * best[level]
        used += made.disk_writes
    assert used > 0


COSTS = [  # forward and backward seconds, bytes of output, tape, scratch and scratch backward
    (2.0, 2.0, 719, 793, 0, 100), (0.5, 2.0, 678, 1160, 0, 0), (2.0, 2.0, 626, 1950, 0, 100),
    (0.5, 1.0, 347, 2628, 0, 0), (0.5, 1.0, 278, 1810, 100, 0), (1.0, 1.0, 127, 1575, 100, 100),
    (5.0, 1.0, 574, 1756, 0, 100), (0.5, 2.0, 260, 1237, 0, 0), (1.0, 1.0, 217, 2289, 100, 0),
]  # fmt: skip


@pytest.mark.parametrize("quota", [765, 1339, 1913, 2678])
def test_a_larger_budget_is_never_slower_within_a_quota(quota: int) -> None:
    """Rounded memory and rounded disk, on a chain where the fastest that fits breaks the quota."""
    stages = tuple(
        Stage(
            name="stage",
            forward_seconds=forward,
            backward_seconds=backward,
            output_bytes=output,
            tape_bytes=tape,
            forward_scratch_bytes=scratch,
            backward_scratch_bytes=back,
        )
        for forward, backward, output, tape, scratch, back in COSTS
    )
    chain = Chain(input_bytes=100, stages=stages)
    disk = DiskCost(write_bytes_per_second=2000.0, read_bytes_per_second=2000.0, quota_bytes=quota)
    planner = Planner(chain, 120, disk=disk)
    floor = min(one.peak_bytes for one in planner.floors)
    with pytest.raises(BudgetTooSmallError, match=f"{floor:,} bytes"):
        planner.plan(floor - 1)
    before = float("inf")
    for step in range(61):
        budget = floor + (planner.store_all.peak_bytes - floor) * step // 60
        found = planner.plan(budget)
        assert found.peak_bytes <= budget
        assert found.disk_bytes <= quota
        assert found.total_seconds <= before
        before = found.total_seconds


@pytest.mark.slow
def test_a_long_chain_of_equal_blocks_is_planned_with_a_disk() -> None:
    """A thousand, within a budget near the floor: the more disk, the faster."""
    stage = Stage(
        name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=4, tape_bytes=64
    )
    chain = Chain(input_bytes=4, stages=(stage,) * 1000)
    free = DiskCost(write_bytes_per_second=40.0, read_bytes_per_second=40.0)
    few = free.model_copy(update={"quota_bytes": 400})
    open_, limited, alone = (plan(chain, 500, disk=disk) for disk in (free, few, None))
    assert max(open_.peak_bytes, limited.peak_bytes) <= 500
    assert limited.disk_bytes <= 400
    # alone is binomial, the best that memory allows; few bytes of disk win 0.3 %
    assert open_.total_seconds < limited.total_seconds < 0.998 * alone.total_seconds
    assert "neighbours as one" in limited.policy


def test_a_schedule_carries_its_disk() -> None:
    stage = Stage(
        name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=4, tape_bytes=32
    )
    chain = Chain(input_bytes=4, stages=(stage,) * 6)
    disk = DiskCost(write_bytes_per_second=40.0, read_bytes_per_second=40.0)
    schedule = plan(chain, 48, disk=disk)
    again = Schedule.from_json(schedule.to_json())
    assert again == schedule
    assert simulate(chain, again).total_seconds == schedule.total_seconds
    assert judged(chain, schedule.regions, policy="", disk=disk).disk_writes > 0


def test_bad_disks_are_named() -> None:
    with pytest.raises(InputError, match="write_bytes_per_second=0"):
        DiskCost(write_bytes_per_second=0.0, read_bytes_per_second=1.0)
    with pytest.raises(InputError, match="quota_bytes=-1"):
        DiskCost(write_bytes_per_second=1.0, read_bytes_per_second=1.0, quota_bytes=-1)
    with pytest.raises(InputError, match="give a directory"):
        plan(Chain(input_bytes=1, stages=(Stage(name="a", forward_seconds=1.0,
             backward_seconds=1.0, output_bytes=1, tape_bytes=1),)), 9,
             disk=3)  # pyright: ignore[reportArgumentType]  # fmt: skip
