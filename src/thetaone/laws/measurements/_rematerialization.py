"""Law 7, measured: a backward pass replayed layer by layer, and an exhaustive best plan."""

from collections.abc import Sequence
from functools import cache

from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _rematerialization as formulas
from thetaone.records import LawResult

LAW = Law("rematerialization", "Keeping every 5th of 10 activations: 20 forwards, 10 loads, 500 ns")
LENGTH, KEEP_EVERY, FORWARD_NS, LOAD_NS = 10, 5, 20.0, 10.0


def measure() -> list[LawResult]:
    """Counts of a replay, times and break-even from them, and the best plan with as many slots."""
    forwards, loads = replay_backward(LENGTH, KEEP_EVERY)
    seconds = forwards * FORWARD_NS + loads * LOAD_NS
    predicted_forwards = formulas.periodic_forwards(LENGTH, KEEP_EVERY)
    predicted_loads = formulas.periodic_loads(LENGTH)
    predicted = formulas.backward_seconds(predicted_forwards, predicted_loads, FORWARD_NS, LOAD_NS)
    once = len({layer // KEEP_EVERY for layer in range(LENGTH)})
    kept = LENGTH // KEEP_EVERY
    best = fewest_advances(LENGTH, kept + 1) - (LENGTH - 1)
    return [
        LAW.exact("forwards in one backward pass", predicted_forwards, forwards),
        LAW.exact("loads in one backward pass", predicted_loads, loads),
        LAW.exact("time of both [ns]", predicted, seconds),
        LAW.exact(
            "break-even load time of a disk [ns]",
            formulas.break_even_load_seconds(predicted, LENGTH), seconds / LENGTH,
            note="the disk keeps every activation: one load a layer",
        ),
        LAW.exact(
            "loads if once per segment", formulas.once_per_segment_loads(LENGTH, KEEP_EVERY), once,
            note="the reading that the problem rules out",
        ),
        LAW.exact(
            f"forwards of an optimal plan, {kept} kept",
            formulas.optimal_backward_forwards(LENGTH, kept), best,
            note=f"the input at hand too, slots used again; with {kept - 1} kept: "
            f"{formulas.optimal_backward_forwards(LENGTH, kept - 1)}",
        ),
        LAW.exact(
            "time of that plan [ns]",
            formulas.backward_seconds(
                formulas.optimal_backward_forwards(LENGTH, kept), LENGTH, FORWARD_NS, LOAD_NS
            ),
            best * FORWARD_NS + LENGTH * LOAD_NS, note="one load a layer, as above",
        ),
        *_published([(24, 4, 51), (100, 5, 316), (100, 10, 222)]),
    ]  # fmt: skip


def replay_backward(length: int, keep_every: int) -> tuple[int, int]:
    """Forwards and loads of a backward pass that works from the nearest kept activation."""
    forwards = loads = 0
    for layer in reversed(range(length)):  # its backward needs activation number `layer`
        activation = layer - layer % keep_every
        loads += 1
        while activation < layer:
            activation += 1
            forwards += 1
    return forwards, loads


@cache
def fewest_advances(length: int, slots: int) -> int:
    """Best of all splits: advance j, keep that activation, finish the rest, then the start."""
    if length == 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    return min(
        j + fewest_advances(length - j, slots - 1) + fewest_advances(j, slots)
        for j in range(1, length)
    )


def _published(cases: Sequence[tuple[int, int, int]]) -> list[LawResult]:
    return [
        LAW.exact(
            f"optimal advances of a step, L={length}, {slots} slots",
            formulas.optimal_advances(length, slots), fewest_advances(length, slots),
            note=f"published: {published}",
        )
        for length, slots, published in cases
    ]  # fmt: skip
