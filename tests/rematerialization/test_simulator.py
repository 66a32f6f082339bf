"""The judge against counts by hand and against published ones."""

import pytest

from thetaone.errors import InputError, ScheduleError
from thetaone.records import Chain, DiskCost, Region, Stage
from thetaone.rematerialization import compare_kept, revolve, simulate
from thetaone.rematerialization.planning._binomial import advances
from thetaone.rematerialization.planning._policies import (
    judged,
    per_block,
    periodic,
    segments,
    square_root,
)


def chain(length: int, *, tape: int = 4) -> Chain:
    step = Stage(
        name="step", forward_seconds=1.0, backward_seconds=2.0, output_bytes=1, tape_bytes=tape
    )
    return Chain(input_bytes=1, stages=(step,) * length)


PUBLISHED = {
    10: [45, 20, 15, 14, 13, 12, 10, 9, 9, 9, 9],
    24: [276, 88, 61, 51, 44, 40, 38, 36, 30, 26, 23],
    32: [496, 140, 93, 75, 68, 60, 54, 52, 46, 42, 32],
    48: [1128, 267, 170, 136, 116, 108, 89, 84, 78, 74, 64],
    50: [1225, 285, 180, 144, 122, 114, 95, 88, 82, 78, 68],
    96: [4560, 793, 462, 354, 300, 264, 233, 210, 174, 170, 160],
    100: [4950, 845, 490, 374, 316, 280, 245, 222, 182, 178, 168],
    200: [19900, 2470, 1305, 948, 790, 680, 580, 522, 429, 378, 368],
    500: [124750, 10044, 4680, 3213, 2576, 2208, 1785, 1636, 1329, 1247, 972],
    1000: [499500, 28820, 12155, 7998, 6284, 5284, 4285, 3636, 2860, 2747, 2472],
}  # Griewank and Walther's t(L, s)
SLOTS = [1, 2, 3, 4, 5, 6, 8, 10, 16, 20, 30]


@pytest.mark.parametrize("length", PUBLISHED)
def test_closed_form_agrees_with_the_published_table(length: int) -> None:
    assert [advances(length, slots) for slots in SLOTS] == PUBLISHED[length]


@pytest.mark.parametrize("length", [length for length in PUBLISHED if length <= 100])
def test_replayed_binomial_schedules_reach_the_table(length: int) -> None:
    for slots, expected in zip(SLOTS, PUBLISHED[length], strict=True):
        schedule = revolve(chain(length), slots)
        assert schedule.forwards == expected + length
        kept = min(slots, length - 1)  # that of the chain, not counted, and the current input
        assert schedule.peak_bytes <= kept + 4 + 2, (length, slots)


def test_live_bytes_by_hand() -> None:
    """Two stages, A = (7, 3, 5), T = (11, 13), the first recomputed."""
    first = Stage(
        name="a", forward_seconds=1, backward_seconds=10, output_bytes=3, tape_bytes=11,
        forward_scratch_bytes=2, backward_scratch_bytes=4, taping_scratch_bytes=6,
        tail_seconds=0.25,
    )  # fmt: skip
    second = Stage(
        name="b", forward_seconds=2, backward_seconds=20, output_bytes=5, tape_bytes=13,
        backward_scratch_bytes=1, tail_seconds=0.5,
    )  # fmt: skip
    two = Chain(input_bytes=7, stages=(first, second), load_seconds=0.5)
    cost = simulate(two, judged(two, [Region(start=0, stop=1)], policy="by hand"))
    assert cost.timeline.operations == ("forward", "tape", "backward", "load", "tape", "backward")
    assert cost.timeline.stages == (0, 1, 1, 0, 0, 0)
    assert cost.timeline.live_bytes == (
        5 + 3 + 2,  # gradient of the output reserved, a_1 made, scratch
        5 + 3 + 13,  # a_1 kept, tape of b
        5 + 3 + 13 + 3 + 1,  # and the gradient of a_1, scratch
        3,  # the gradient of a_1 alone
        3 + 11 + 6,
        3 + 11 + 7 + 4,
    )
    assert cost.peak_bytes == 25
    # the recomputation stops at a's last saved tensor; the sweep runs a and b to their ends
    assert cost.total_seconds == 1 + 2 + 20 + 0.5 + (1 - 0.25) + 10
    assert (cost.forwards, cost.loads, cost.peak_stage) == (3, 1, "b")


def test_input_without_gradient_needs_none() -> None:
    one = chain(1).model_copy(update={"input_requires_grad": False})
    assert simulate(chain(1), judged(chain(1), [], policy="")).peak_bytes == 6
    assert simulate(one, judged(one, [], policy="")).peak_bytes == 5


def test_the_source_problem() -> None:
    found = compare_kept(10, 5, forward_seconds=20e-9, load_seconds=10e-9)
    asked, best, everything = found.passes
    assert (asked.forwards, asked.loads) == (20, 10)
    assert asked.seconds == pytest.approx(500e-9)
    assert asked.break_even_load_seconds == pytest.approx(50e-9)
    assert (best.kept, best.forwards, best.loads) == (2, 6, 10)
    assert (everything.forwards, everything.loads) == (0, 10)
    assert "20 forwards" in str(found)
    assert "50 ns" in str(found)


@pytest.mark.parametrize("length", range(1, 15))
def test_closed_forms_of_equal_layers_are_what_a_replay_counts(length: int) -> None:
    layers = chain(length)
    last = Region(start=length - 1, stop=length)  # it, too, loads its input
    for every in range(1, length + 1):
        kept = length // every
        passes = compare_kept(length, every, forward_seconds=1.0, load_seconds=0.0).passes
        replayed = [
            periodic(layers, every, reload="layer"),
            judged(layers, [*revolve(layers, kept + 1).regions, last], policy="optimal"),
            per_block(layers),
        ]
        for one, schedule in zip(passes, replayed, strict=False):
            assert (one.forwards, one.loads) == (schedule.replays, schedule.loads)


def test_loading_once_per_segment_is_two_loads() -> None:
    assert periodic(chain(10), 5, reload="segment").loads == 2


def test_fixed_policies_count_what_they_say() -> None:
    assert per_block(chain(9)).forwards == 18
    assert square_root(chain(9)).forwards == 9 + 6
    assert segments(chain(9), 1).forwards == 9
    assert [periodic(chain(9), 3, reload="layer").executions[k] for k in range(3)] == [4, 3, 2]


def test_limits_are_enforced() -> None:
    schedule = segments(chain(8), 2)
    with pytest.raises(ScheduleError, match="over the limit of 3"):
        simulate(chain(8), schedule, budget_bytes=3)
    with pytest.raises(ScheduleError, match="for 8 stages and the chain has 9"):
        simulate(chain(9), schedule)


def test_disk_transfers_are_counted_and_priced() -> None:
    regions = [Region(start=0, stop=3), Region(start=3, stop=6, tier="disk")]
    disk = DiskCost(write_bytes_per_second=2.0, read_bytes_per_second=4.0, file_seconds=1.0)
    inside = judged(chain(8), [Region(start=0, stop=3), Region(start=3, stop=6)], policy="ram")
    spilled = judged(chain(8), regions, policy="disk", disk=disk)
    assert (spilled.disk_writes, spilled.disk_reads, spilled.disk_bytes) == (1, 1, 1)
    assert spilled.total_seconds == inside.total_seconds + (1 + 1 / 2) + (1 + 1 / 4)
    costs = (simulate(chain(8), inside), simulate(chain(8), spilled, disk=disk))
    during = [
        cost.timeline.live_bytes[cost.timeline.operations.index("backward")] for cost in costs
    ]
    assert during == [12, 11]  # while the tapes of the last two stages are there, a_3 is not
    with pytest.raises(ScheduleError, match="pass disk="):
        judged(chain(8), regions, policy="disk")
    with pytest.raises(ScheduleError, match="over the quota"):
        simulate(chain(8), spilled, disk=disk.model_copy(update={"quota_bytes": 0}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: segments(chain(4), 5), "segments=5: need 1 … 4"),
        (lambda: periodic(chain(4), 0), "every=0: need 1 … 4"),
        (lambda: periodic(chain(4), 2, reload="twice"), "reload='twice'"),  # pyright: ignore[reportArgumentType]
        (lambda: revolve(chain(4), 0), "slots=0: need at least 1"),
        (lambda: compare_kept(4, 5, forward_seconds=1, load_seconds=1), "keep_every=5"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # pyright: ignore[reportCallIssue]


def test_an_input_that_is_in_memory_anyway_does_not_go_to_disk() -> None:
    """The chain's own, one that a surrounding region keeps, one in the tape of the stage before."""
    chain = Chain(
        input_bytes=1,
        stages=tuple(
            Stage(name=f"{k}", forward_seconds=1, backward_seconds=1, output_bytes=1, tape_bytes=4)
            for k in range(6)
        ),
    )
    disk = DiskCost(write_bytes_per_second=1.0, read_bytes_per_second=1.0)
    spans = [(0, 1), (2, 5), (2, 3)]
    ram = judged(chain, [Region(start=a, stop=b) for a, b in spans], policy="")
    asked = [Region(start=a, stop=b, tier="disk") for a, b in spans]
    found = judged(chain, asked, policy="", disk=disk)
    assert (found.disk_writes, found.peak_bytes, found.total_seconds) == (
        0,
        ram.peak_bytes,
        ram.total_seconds,
    )
    asked = [Region(start=1, stop=4), Region(start=1, stop=3, tier="disk")]
    asked.insert(0, Region(start=0, stop=1))
    assert judged(chain, asked, policy="", disk=disk).disk_writes == 0
