"""Problem 7: what one backward pass costs when only some activations are kept."""

import math

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law
from thetaone.laws.measurements import replay_backward
from thetaone.records import LawResult

LAW = Law(
    "rematerialization",
    "Every k-th activation is kept; each layer starts again from the nearest, loaded afresh: how "
    "long does one backward pass take to get its activations back?",
)
CASES = ((10, 5, 20.0, 10.0), (12, 3, 20.0, 10.0), (11, 4, 7.0, 13.0))


def measure(formula: Formula) -> list[LawResult]:
    """Forwards and loads of a backward pass that is replayed layer by layer."""
    rows: list[LawResult] = []
    for n_layers, keep_every, forward_ns, load_ns in CASES:
        forwards, loads = replay_backward(n_layers, keep_every)
        quantity = f"{n_layers} layers, kept every {keep_every}, {forward_ns:g} and {load_ns:g} ns"
        measured = forwards * forward_ns + loads * load_ns
        answer = _answer(formula, (n_layers, keep_every, forward_ns, load_ns))
        note = f"{forwards} forwards, {loads} loads"
        rows.append(LAW.exact(quantity, answer, measured, note=note))
    return rows


def _answer(formula: Formula, case: tuple[int, int, float, float]) -> float:
    n_layers, keep_every, forward_ns, load_ns = case
    return formula.number(
        n_layers=n_layers, keep_every=keep_every, forward_ns=forward_ns, load_ns=load_ns
    )


def _steps(n_layers: int, keep_every: int) -> int:
    return sum(layer % keep_every for layer in range(n_layers))


REMATERIALIZATION = Problem(
    law=LAW,
    arguments={
        "n_layers": "layers [count]",
        "keep_every": "layers between kept activations [count]",
        "forward_ns": "one forward of a layer [ns]",
        "load_ns": "one load of a kept activation [ns]",
    },
    measure=measure,
    numbers=lambda formula: [_answer(formula, case) for case in CASES],
    readings={
        "one load a segment: the problem loads afresh for every layer": (
            lambda n_layers, keep_every, forward_ns, load_ns: (
                _steps(n_layers, keep_every) * forward_ns
                + math.ceil(n_layers / keep_every) * load_ns
            )
        ),
        "a segment recomputed once and held: then more than one activation is in memory": (
            lambda n_layers, keep_every, forward_ns, load_ns: (
                (n_layers - math.ceil(n_layers / keep_every)) * forward_ns
                + math.ceil(n_layers / keep_every) * load_ns
            )
        ),
        "each layer's own forward counted as well: its input is what is needed": (
            lambda n_layers, keep_every, forward_ns, load_ns: (
                (_steps(n_layers, keep_every) + n_layers) * forward_ns + n_layers * load_ns
            )
        ),
        "every layer recomputed from the input": lambda n_layers, forward_ns, load_ns: (
            n_layers * (n_layers - 1) // 2 * forward_ns + n_layers * load_ns
        ),
    },
)
