"""The planner against exhaustive search, and the promises of `plan`."""

import functools
import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import Chain, DiskCost, Region, Schedule, Stage
from thetaone.rematerialization import Planner, frontier, plan, simulate, store_all
from thetaone.rematerialization.planning._policies import judged, segments
from thetaone.rematerialization.planning.table import (
    chain_arrays,
    memory_levels,
    solve_grouped,
)


@st.composite
def stages(draw: st.DrawFn, largest: int = 12) -> Stage:
    size = st.integers(0, largest)
    output = draw(st.integers(1, largest))
    return Stage(
        name="stage",
        forward_seconds=(forward := draw(st.integers(1, 9))),
        tail_seconds=draw(st.just(0) | st.integers(0, forward)),
        backward_seconds=draw(st.integers(0, 9)),
        output_bytes=output,
        tape_bytes=draw(size),
        forward_scratch_bytes=draw(size),
        backward_scratch_bytes=draw(size),
        taping_scratch_bytes=draw(st.none() | size),
    )


@st.composite
def chains(draw: st.DrawFn, longest: int = 6, largest: int = 12) -> Chain:
    kinds = draw(st.lists(stages(largest), min_size=1, max_size=longest))
    repeat = draw(st.booleans())
    links = (kinds[0],) * len(kinds) if repeat else tuple(kinds)
    return Chain(
        input_bytes=draw(st.integers(0, largest)),
        stages=links,
        input_requires_grad=draw(st.booleans()),
        load_seconds=draw(st.sampled_from([0.0, 0.0, 2.0])),
    )


@functools.cache
def families(start: int, stop: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Every persistent schedule of stages start … stop−1, as spans of its regions."""
    if stop - start == 1:
        return ((),)
    found = list(families(start + 1, stop))
    for split in range(start + 1, stop):
        found.extend(
            ((start, split), *inner, *rest)
            for inner in families(start, split)
            for rest in families(split, stop)
        )
    return tuple(found)


def every_schedule(chain: Chain) -> Iterator[Schedule]:
    for spans in families(0, chain.length):
        yield judged(chain, [Region(start=a, stop=b) for a, b in spans], policy="some")


@settings(max_examples=60, deadline=None)
@given(chains(), st.floats(0, 1))
def test_plan_is_the_best_of_all_schedules(chain: Chain, fraction: float) -> None:
    known = list(every_schedule(chain))
    floor = min(schedule.peak_bytes for schedule in known)
    budget = round(floor + fraction * (store_all(chain).peak_bytes - floor))
    best = min(one.total_seconds for one in known if one.peak_bytes <= budget)
    found = plan(chain, budget)
    assert found.peak_bytes <= budget
    assert found.total_seconds == best
    if floor > 1:
        with pytest.raises(BudgetTooSmallError, match=f"{floor:,} bytes") as caught:
            plan(chain, floor - 1)
        assert caught.value.floor_bytes == floor
        assert plan(chain, caught.value.floor_bytes).peak_bytes == floor


def test_every_schedule_is_enumerated_once() -> None:
    assert [len(families(0, n)) for n in range(1, 7)] == [1, 2, 6, 22, 90, 394]
    assert len(set(families(0, 6))) == 394


@settings(max_examples=15, deadline=None)
@given(chains(longest=12, largest=100_000))
def test_rounded_memory_keeps_the_budget_and_is_monotone(chain: Chain) -> None:
    known = Planner(chain, memory_units=64)
    low, high = known.floor.peak_bytes, known.store_all.peak_bytes
    last = float("inf")
    for step in range(21):
        budget = low + (high - low) * step // 20
        found = known.plan(budget)
        assert simulate(chain, found, budget_bytes=budget).total_seconds == found.total_seconds
        assert found.total_seconds <= last
        last = found.total_seconds
    assert last == known.store_all.total_seconds


def transformer(length: int = 24, tape: int = 16) -> Chain:
    block = Stage(
        name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=1, tape_bytes=tape
    )
    return Chain(input_bytes=1, stages=(block,) * length)


@pytest.mark.parametrize(
    ("budget", "extra"),
    [(20, 88), (24, 40), (28, 36), (32, 32), (40, 23), (50, 22), (64, 21), (96, 19), (128, 17),
     (200, 12), (300, 6), (385, 1)],
)  # fmt: skip
def test_counts_of_a_transformer(budget: int, extra: int) -> None:
    """Recomputed blocks of 24, in half-MiB units; found by an independent C programme."""
    assert plan(transformer(), budget).forwards == 24 + extra


@pytest.mark.parametrize("count", [2, 4, 6, 8, 12, 24])
def test_never_slower_than_equal_segments(count: int) -> None:
    rival = segments(transformer(), count)
    assert plan(transformer(), rival.peak_bytes).total_seconds <= rival.total_seconds


def test_more_units_are_not_slower_by_much() -> None:
    """Rounding in 500 units costs at most 1 % of a step on a ragged chain."""
    ragged = tuple(
        Stage(
            name=f"s{k}",
            forward_seconds=1 + k * 7 % 5,
            backward_seconds=2 + k * 3 % 4,
            output_bytes=1000 + k * 7919 % 9000,
            tape_bytes=9000 + k * 104729 % 90000,
            backward_scratch_bytes=k * 31 % 5000,
        )
        for k in range(30)
    )
    chain = Chain(input_bytes=5000, stages=ragged)
    coarse, fine = Planner(chain, 500), Planner(chain, 8000)
    for fraction in (0.1, 0.3, 0.5, 0.75, 0.95):
        budget = int(fraction * coarse.store_all.peak_bytes)
        assert coarse.plan(budget).total_seconds <= 1.01 * fine.plan(budget).total_seconds


def test_a_cheap_stage_after_the_sweep_is_preferred() -> None:
    """With one tape to drop, the stage with the cheapest forward is recomputed."""
    stages = tuple(
        Stage(
            name=f"s{k}", forward_seconds=time, backward_seconds=1.0, output_bytes=1, tape_bytes=10
        )
        for k, time in enumerate([5.0, 1.0, 5.0, 5.0])
    )
    chain = Chain(input_bytes=1, stages=stages)
    assert plan(chain, store_all(chain).peak_bytes - 1).executions == (1, 2, 1, 1)


@pytest.mark.parametrize("budget", [0, -5, "much", "2 parsecs", True, -0.5, 1.5])
def test_bad_budgets(budget: object) -> None:
    with pytest.raises(InputError, match=r"budget="):
        plan(transformer(), budget)  # pyright: ignore[reportArgumentType]


def test_budget_as_text_and_as_fraction() -> None:
    assert plan(transformer(), "386B").forwards == 24
    assert plan(transformer(), 1.0).forwards == 24
    assert plan(transformer(), 0.5).budget_bytes == 193


def test_too_few_units() -> None:
    with pytest.raises(InputError, match="memory_units=2"):
        plan(transformer(), 100, memory_units=2)


def test_frontier_falls_from_floor_to_store_all() -> None:
    found = frontier(transformer(), points=12)
    assert found.points[0].peak_bytes == found.floor_bytes == 19
    assert found.points[-1].peak_bytes == found.store_all_bytes == 386
    seconds = [one.total_seconds for one in found.points]
    assert seconds == sorted(seconds, reverse=True)
    for policy in found.policies:
        best = plan(transformer(), policy.peak_bytes)
        assert best.total_seconds <= policy.total_seconds, policy.label


def test_frontier_with_a_disk_lies_below() -> None:
    disk = DiskCost(write_bytes_per_second=20.0, read_bytes_per_second=20.0)
    found = frontier(transformer(), points=12, disk=disk)
    assert found.disk_points
    for one in found.disk_points:
        assert one.peak_bytes <= found.points[-1].peak_bytes
        beside = [
            p.total_seconds
            for p in (plan(transformer(), one.peak_bytes),)
            if one.peak_bytes >= found.floor_bytes
        ]
        assert all(one.total_seconds < seconds for seconds in beside)
        schedule = plan(transformer(), one.peak_bytes, disk=disk)
        assert (schedule.total_seconds, schedule.disk_writes > 0) == (one.total_seconds, True)
    assert "optimal, with disk" in str(found)
    assert frontier(transformer(), points=12).disk_points == ()


def unlike(length: int) -> Chain:
    draw = random.Random(0)
    stages = tuple(
        Stage(
            name=f"s{k}",
            forward_seconds=draw.uniform(0.5, 2),
            backward_seconds=draw.uniform(1, 4),
            tail_seconds=draw.uniform(0, 0.4),
            output_bytes=draw.randint(250, 2000),
            tape_bytes=draw.randint(2000, 32000),
            backward_scratch_bytes=draw.randint(0, 2000),
        )
        for k in range(length)
    )
    return Chain(input_bytes=1000, stages=stages)


@pytest.mark.parametrize(("size", "loss"), [(1, 0.0), (2, 0.03), (3, 0.05)])
def test_neighbours_planned_as_one_cost_little(size: int, loss: float) -> None:
    """Grouped plans are judged to fit, and lose a few percent where neighbours differ 16-fold."""
    chain = unlike(60)
    floor_bytes, most = Planner(chain).floor_bytes, store_all(chain).peak_bytes
    levels = memory_levels(chain_arrays(chain), most, 500)
    one_by_one, table = (solve_grouped(chain, together, levels) for together in (1, size))
    exact, found = one_by_one.whole()[0], table.whole()[0]
    for level in range(0, levels.count, 40):
        budget = int(levels.values[level])
        if budget < 2 * floor_bytes or not np.isfinite(found[level]):
            continue
        made = judged(chain, table.regions(0, level), policy="grouped")
        assert made.peak_bytes <= budget
        assert made.total_seconds == pytest.approx(found[level])
        assert exact[level] * (1 - 1e-9) <= made.total_seconds <= (1 + loss + 1e-9) * exact[level]


@pytest.mark.slow
def test_a_long_chain_of_unlike_blocks_is_planned_well() -> None:
    chain = unlike(1000)
    known = Planner(chain)
    assert "neighbours as one" in known.policy
    for count in (2, 3, 10, 40):
        rival = segments(chain, count)
        assert known.plan(rival.peak_bytes).total_seconds <= rival.total_seconds


def test_a_long_chain_of_equal_blocks_keeps_every_tape_that_fits() -> None:
    """Half of store-all keeps half of the tapes: 500 of 1000 blocks are recomputed once."""
    chain = transformer(1000)
    budget = store_all(chain).peak_bytes // 2
    assert plan(chain, budget).forwards in (1500, 1501)


@settings(max_examples=30, deadline=None)
@given(chains(), st.floats(0, 1))
def test_blocks_one_by_one_are_chosen_best(chain: Chain, fraction: float) -> None:
    """Where no region may span two stages: against every subset of blocks to recompute."""
    separate = chain.model_copy(update={"separate": "a reason"})
    known = [
        judged(chain, [Region(start=k, stop=k + 1) for k in chosen], policy="some")
        for count in range(chain.length)
        for chosen in itertools.combinations(range(chain.length - 1), count)
    ]
    floor = min(one.peak_bytes for one in known)
    budget = round(floor + fraction * (store_all(chain).peak_bytes - floor))
    best = min(one.total_seconds for one in known if one.peak_bytes <= budget)
    assert plan(separate, budget).total_seconds == best
    if floor > 1:
        with pytest.raises(BudgetTooSmallError, match=f"{floor:,} bytes"):
            plan(separate, floor - 1)
