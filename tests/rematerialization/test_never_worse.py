"""Plans against every schedule of short chains, and against every fixed policy of longer ones."""

import functools
import math
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from thetaone.errors import BudgetTooSmallError, InputError, ScheduleError
from thetaone.records import Chain, DiskCost, Region, Schedule, Stage
from thetaone.rematerialization import Planner, plan, revolve, simulate, store_all
from thetaone.rematerialization.planning._candidates import FixedPolicies
from thetaone.rematerialization.planning._policies import judged, per_block, periodic, segments

Spans = tuple[tuple[int, int], ...]


@functools.cache
def persistent(start: int, stop: int) -> tuple[Spans, ...]:
    """Every persistent schedule of stages start … stop−1, as spans of its regions."""
    if stop - start == 1:
        return ((),)
    spans = list(persistent(start + 1, stop))
    for split in range(start + 1, stop):
        spans.extend(
            ((start, split), *inner, *rest)
            for inner in persistent(start, split)
            for rest in persistent(split, stop)
        )
    return tuple(spans)


def random_stage(draw: random.Random, largest: int) -> Stage:
    """Whole or broken times; sizes up to ``largest``, tapes up to four times that."""
    forward = draw.choice([draw.randint(1, 9), draw.uniform(0.5, 9)])
    return Stage(
        name="stage",
        forward_seconds=forward,
        tail_seconds=draw.choice([0, 0, draw.uniform(0, forward)]),
        backward_seconds=draw.uniform(0, 9),
        output_bytes=draw.randint(1, largest),
        tape_bytes=draw.randint(0, largest * draw.choice([1, 4])),
        forward_scratch_bytes=draw.choice([0, draw.randint(0, largest)]),
        backward_scratch_bytes=draw.choice([0, draw.randint(0, largest)]),
        taping_scratch_bytes=draw.choice([None, draw.randint(0, largest)]),
    )


def random_chain(draw: random.Random, length: int, *, lists: bool) -> Chain:
    """Equal or unlike stages, sizes from bytes to hundreds of MB, one list or several."""
    largest = draw.choice([12, 1000, 10**6, 3 * 10**8])
    stages = [random_stage(draw, largest) for _ in range(length)]
    if draw.random() < 0.2:
        stages = stages[:1] * length
    cuts: list[int] = []
    if lists:
        stages = [one.model_copy(update={"recomputable": draw.random() < 0.93}) for one in stages]
        cuts = sorted(draw.sample(range(1, length), min(length - 1, draw.choice([0, 0, 1, 2]))))
    return Chain(
        input_bytes=draw.randint(0, largest),
        input_requires_grad=draw.random() < 0.5,
        load_seconds=draw.choice([0.0, 0.0, 2.0]),
        stages=tuple(stages),
        lists=tuple(cuts),
        separate="a reason" if lists and draw.random() < 0.1 else "",
    )


def allowed(chain: Chain, spans: Spans) -> bool:
    """Whether every region lies in one list and holds only what may run again."""
    return all(
        (not chain.separate or stop - start == 1)
        and not any(start < cut < stop for cut in chain.lists)
        and all(chain.stages[k].recomputable for k in range(start, stop))
        for start, stop in spans
    )


def regions(spans: Spans) -> list[Region]:
    return [Region(start=start, stop=stop) for start, stop in spans]


def require_best(chain: Chain, draw: random.Random) -> None:
    """At the floor, at peaks of schedules and just below them, against every schedule."""
    every = [
        judged(chain, regions(spans), policy="some")
        for spans in persistent(0, chain.length)
        if allowed(chain, spans)
    ]
    planner, floor = Planner(chain), min(one.peak_bytes for one in every)
    assert planner.floor_bytes == floor
    some = [one.peak_bytes for one in draw.sample(every, min(4, len(every)))]
    for budget in {floor, *some, *(peak - 1 for peak in some)}:
        if budget < 1:
            continue
        if budget < floor:
            with pytest.raises(BudgetTooSmallError, match=f"{floor:,} bytes"):
                planner.plan(budget)
            continue
        schedule = planner.plan(budget)
        best = min(one.total_seconds for one in every if one.peak_bytes <= budget)
        assert simulate(chain, schedule, budget_bytes=budget).total_seconds == pytest.approx(best)
        assert schedule.bound_seconds == pytest.approx(best)  # nothing is rounded, and it says so


@pytest.mark.parametrize("seed", range(4))
def test_no_schedule_of_a_short_chain_is_faster(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(25):
        require_best(random_chain(draw, draw.randint(1, 6), lists=True), draw)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_no_schedule_of_two_thousand_short_chains_is_faster(seed: int) -> None:
    draw = random.Random(seed)
    for number in range(105):
        length = 7 if number % 20 == 0 else draw.randint(1, 6)
        require_best(random_chain(draw, length, lists=True), draw)


def fixed_policies(chain: Chain) -> Iterator[Schedule]:
    """What people do by hand, for every number of segments or period."""
    length = chain.length
    yield per_block(chain)
    for k in range(1, length + 1):
        yield periodic(chain, k)
        yield periodic(chain, k, reload="layer")
        yield segments(chain, k)
        yield revolve(chain, k)
        for bounds in (
            [*range(0, length, k), length],  # every k
            [*(length // k * i for i in range(k)), length],  # torch's checkpoint_sequential
        ):
            spans = tuple(pairwise(bounds))
            yield judged(chain, regions(spans), policy="with the last")
            yield judged(chain, regions(spans[:-1]), policy="without the last")
        for chosen in (range(k - 1, length, k), range(0, length, k), range(k), range(k, length)):
            yield judged(chain, regions(tuple((i, i + 1) for i in chosen)), policy="some blocks")
        yield cheapest(chain, k, join=True)
        yield cheapest(chain, k, join=False)


def cheapest(chain: Chain, count: int, *, join: bool) -> Schedule:
    """The blocks whose tapes cost least to make again, as a user would choose them."""

    def price(k: int) -> float:
        stage = chain.stages[k]
        return (stage.forward_seconds - stage.tail_seconds) / max(stage.tape_bytes, 1e-9)

    chosen = sorted(sorted(range(chain.length), key=price)[:count])
    spans = [(k, k + 1) for k in chosen]
    if join:
        spans = []
        for k in chosen:
            spans = [*spans[:-1], (spans[-1][0], k + 1)] if spans and spans[-1][1] == k else [
                *spans, (k, k + 1)]  # fmt: skip
    return judged(chain, regions(tuple(spans)), policy=f"{count} cheapest, joined: {join}")


def require_not_slower(chain: Chain, units: int) -> bool:
    """At the very peak of every fixed policy; whether memory was rounded."""
    planner = Planner(chain, units)
    for policy in fixed_policies(chain):
        schedule = planner.plan(policy.peak_bytes)
        assert schedule.peak_bytes <= policy.peak_bytes
        assert schedule.total_seconds <= policy.total_seconds * (1 + 1e-12), policy.policy
        assert schedule.bound_seconds is not None
        assert schedule.bound_seconds <= policy.total_seconds * (1 + 1e-12)
    return not planner.exact


def test_no_fixed_policy_is_faster() -> None:
    draw = random.Random(7)
    for _ in range(6):
        chain = random_chain(draw, draw.randint(2, 14), lists=False)
        require_not_slower(chain, draw.choice([16, 500]))


def of_few_kinds(seed: int, lengths: tuple[int, int]) -> Chain:
    """Two, three or all unlike kinds of stages in any order, of sizes that share no unit."""
    draw = random.Random(seed)
    length = draw.randint(*lengths)
    kinds = [random_stage(draw, 10**7) for _ in range(draw.choice([2, 3, length]))]
    return Chain(input_bytes=10**6, stages=tuple(draw.choice(kinds) for _ in range(length)))


def test_no_fixed_policy_is_faster_where_memory_is_rounded() -> None:
    """By the table alone 14 policies would be, with so few levels."""
    assert require_not_slower(of_few_kinds(104, (50, 90)), 16)


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("count", [5, 20, 40])
def test_the_cheapest_blocks_are_among_the_candidates(count: int, *, join: bool) -> None:
    draw = random.Random(3)
    stages = tuple(random_stage(draw, 10**7) for _ in range(60))
    policy = cheapest(chain := Chain(input_bytes=10**6, stages=stages), count, join=join)
    (fastest,) = FixedPolicies(chain).fastest(policy.peak_bytes, math.inf)
    assert fastest.peak_bytes <= policy.peak_bytes
    assert fastest.total_seconds <= policy.total_seconds * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 220))
def test_no_fixed_policy_of_two_thousand_chains_is_faster(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(105):
        chain = random_chain(draw, draw.randint(2, 10), lists=False)
        require_not_slower(chain, draw.choice([16, 64, 500]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_no_fixed_policy_of_a_long_chain_is_faster(seed: int) -> None:
    require_not_slower(of_few_kinds(seed, (50, 90)), 16)


def test_policies_are_priced_as_the_judge_prices_them() -> None:
    draw = random.Random(5)
    for _ in range(15):
        chain = random_chain(draw, draw.randint(1, 8), lists=True)
        policies = FixedPolicies(chain)
        for number, seconds in enumerate(policies.seconds):
            schedule = policies.schedule(number)
            assert schedule.total_seconds == pytest.approx(seconds)
            assert schedule.peak_bytes == policies.peak(number)


def block(**changes: object) -> Stage:
    stage = Stage(
        name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=1, tape_bytes=16
    )
    return stage.model_copy(update=changes)


def test_a_rounded_plan_says_what_rounding_can_cost() -> None:
    """The bound is below what much finer levels reach, and near it."""
    draw = random.Random(3)
    chain = Chain(input_bytes=10**6, stages=tuple(random_stage(draw, 10**7) for _ in range(40)))
    coarse, fine = Planner(chain, 500), Planner(chain, 8000)
    assert not coarse.exact
    rough = coarse.plan(int(0.3 * coarse.store_all.peak_bytes))
    assert "above the least possible   at most" in str(rough)
    for share in (0.3, 0.5, 0.75, 0.95):
        budget = int(share * coarse.store_all.peak_bytes)
        schedule, finer = coarse.plan(budget), fine.plan(budget)
        assert schedule.bound_seconds is not None
        assert schedule.bound_seconds <= finer.total_seconds <= 1.002 * schedule.total_seconds
        assert schedule.total_seconds <= 1.03 * schedule.bound_seconds


def test_what_fits_whole_needs_no_table_and_the_next_budget_reads_the_same_one() -> None:
    draw = random.Random(4)
    chain = Chain(input_bytes=10**6, stages=tuple(random_stage(draw, 10**7) for _ in range(30)))
    planner = Planner(chain)
    assert planner.plan(planner.store_all.peak_bytes).forwards == 30
    assert "tables" not in vars(planner)  # nothing was filled
    planner.plan(planner.store_all.peak_bytes // 2)
    tables = planner.tables
    planner.plan(planner.store_all.peak_bytes // 3)
    assert planner.tables is tables


def test_a_cached_plan_carries_the_names_of_its_own_chain() -> None:
    first = Chain(input_bytes=1, stages=(block(),) * 4, context={"parameters": "12 float32"})
    second = first.model_copy(update={"context": {"parameters": "34 float32"}})
    assert first.fingerprint == second.fingerprint
    assert [plan(one, 40).parameters for one in (first, second)] == ["12 float32", "34 float32"]


def test_two_lists_share_one_budget() -> None:
    """Their tapes are there together: the list whose blocks are cheaper is recomputed."""
    cheap, dear = block(), block(forward_seconds=10.0)
    chain = Chain(input_bytes=1, stages=(dear,) * 4 + (cheap,) * 4, lists=(4,))
    schedule = plan(chain, store_all(chain).peak_bytes - 30)
    assert schedule.executions[:4] == (1, 1, 1, 1)
    assert sum(schedule.executions) == 10


def test_a_stage_that_may_not_run_again_keeps_its_tape() -> None:
    kept = block(recomputable=False, forward_seconds=0.0)
    chain = Chain(input_bytes=1, stages=(block(), block(), kept, block(), block()))
    floor = Planner(chain).floor
    assert floor.executions[2] == 1
    assert max(floor.executions) > 1
    with pytest.raises(ScheduleError, match=r"region 1…3 holds 'block', which may not run again"):
        judged(chain, [Region(start=1, stop=3)], policy="by hand")
    two = Chain(input_bytes=1, stages=(block(),) * 4, lists=(2,))
    with pytest.raises(ScheduleError, match=r"region 1…3 spans two lists"):
        judged(two, [Region(start=1, stop=3)], policy="by hand")


@pytest.mark.parametrize("lists", [(0,), (4,), (2, 2), (3, 1), (-1,)])
def test_bad_lists_are_named(lists: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="need rising positions between 1 and 3"):
        Chain(input_bytes=1, stages=(block(),) * 4, lists=lists)


def test_a_fast_disk_serves_several_lists() -> None:
    chain = Chain(input_bytes=4, stages=(block(output_bytes=4, tape_bytes=32),) * 8, lists=(4,))
    disk = DiskCost(write_bytes_per_second=400.0, read_bytes_per_second=400.0)
    with_disk, alone = plan(chain, 56, disk=disk), plan(chain, 56)
    assert with_disk.disk_writes > 0
    assert with_disk.total_seconds < alone.total_seconds
    simulate(chain, with_disk, budget_bytes=56)


@pytest.mark.slow
def test_a_thousand_unlike_stages() -> None:
    draw = random.Random(0)
    stages = tuple(random_stage(draw, 2**20) for _ in range(1000))
    chain = Chain(input_bytes=2**20, stages=stages)
    planner = Planner(chain)
    for share, count, above in ((0.3, 512, 1.09), (0.5, 292, 1.045), (0.75, 140, 1.02)):
        schedule = planner.plan(int(share * planner.store_all.peak_bytes))
        assert schedule.bound_seconds is not None
        assert schedule.total_seconds <= above * schedule.bound_seconds
        for join in (True, False):
            policy = cheapest(chain, count, join=join)
            assert planner.plan(policy.peak_bytes).total_seconds <= policy.total_seconds
