"""Right formulas hold, each tempting one is refuted and recognised, bad ones are errors."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import thetaone as t1
from thetaone.course._check import _PROBLEMS
from thetaone.course._verdict import row_verdict, verdict
from thetaone.errors import InputError
from thetaone.records import CourseAnswer, LawResult

PI = math.pi
# Several right answers where a problem has several; estimators differ in variance only.
RIGHT: dict[str, list[Callable[..., Any]]] = {
    "features-at-init": [lambda d1: d1],
    "sign-step": [lambda d1, d2: d1 * (1 - 2 / PI) + d1**2 * 2 / PI],
    "figure-1": [lambda width_ratio: 1 / width_ratio],
    "adam-table": [lambda width_ratio: 1 / width_ratio],
    "spectral-condition": [
        lambda w, n_out, n_in: math.sqrt(n_in / n_out) * torch.linalg.matrix_norm(w, 2),
        t1.rms_operator_norm,
    ],
    "gradient-estimators": [
        lambda f, x, mu, sigma: f(x) * (x - mu) / sigma**2,
        lambda f, x, mu, sigma: (f(x) - 1.75) * (x - mu) / sigma**2,
        lambda slope, x: slope(x),
        lambda f, x, mu, sigma: (  # the mean of the others has not seen x
            (f(x) - (f(x).sum() - f(x)) / (len(x) - 1)) * (x - mu) / sigma**2
        ),
    ],
    "rematerialization": [
        lambda n_layers, keep_every, forward_ns, load_ns: (
            sum(layer % keep_every for layer in range(n_layers)) * forward_ns + n_layers * load_ns
        )
    ],
}
CORRECT = [(name, index) for name, formulas in RIGHT.items() for index in range(len(formulas))]
TEMPTING = [
    pytest.param(name, words, marks=[pytest.mark.slow] if name == "figure-1" and index else [])
    for name, problem in _PROBLEMS.items()
    for index, words in enumerate(problem.readings)
]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_problem_is_answered_right_and_wrong_here() -> None:
    assert RIGHT.keys() == _PROBLEMS.keys()
    assert all(RIGHT.values())
    assert all(problem.readings for problem in _PROBLEMS.values())


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "index"), CORRECT)
def test_a_right_formula_holds(name: str, index: int) -> None:
    before = torch.random.get_rng_state()
    answer = t1.course.check(name, RIGHT[name][index])
    assert answer.verdict == "holds", str(answer)
    assert answer.mistake == ""
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "words"), TEMPTING)
def test_a_tempting_formula_is_refuted_by_name(name: str, words: str) -> None:
    answer = t1.course.check(name, _PROBLEMS[name].readings[words])
    assert answer.verdict == "refuted", str(answer)
    assert answer.mistake == words
    assert words in str(answer)


@pytest.mark.statistical
@pytest.mark.parametrize(
    "name", ["features-at-init", "sign-step", "adam-table", "rematerialization"]
)
@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_two_percent_off_is_refuted_and_is_no_known_mistake(name: str, factor: float) -> None:
    arguments = ", ".join(_PROBLEMS[name].arguments)
    right = RIGHT[name][0]
    taken = right.__code__.co_varnames[: right.__code__.co_argcount]
    call = ", ".join(f"{argument}={argument}" for argument in taken)
    off = eval(f"lambda {arguments}: factor * right({call})", {"factor": factor, "right": right})
    answer = t1.course.check(name, off)
    assert (answer.verdict, answer.mistake) == ("refuted", "")


def test_the_tempting_two_loads() -> None:
    """The source problem's own numbers: 500 ns, not the 420 ns of two loads."""
    answer = t1.course.check(
        "rematerialization",
        lambda forward_ns, load_ns: 20 * forward_ns + 2 * load_ns,  # right for no other case
    )
    first = answer.results[0]
    assert (first.predicted, first.measured) == (420, 500)
    assert answer.headline == (
        "rematerialization: refuted. 10 layers, kept every 5, 20 and 10 ns: measured 500; if the "
        "formula held, 420."
    )


def test_the_answer_survives_its_json() -> None:
    answer = t1.course.check("rematerialization", lambda: 500)
    assert CourseAnswer.from_json(answer.to_json()) == answer


def row(measured: float, stderr: float, **changes: Any) -> LawResult:
    fields = {"name": "n", "title": "t", "quantity": "q", "predicted": 1.0, "passed": False}
    return LawResult(measured=measured, stderr=stderr, **(fields | changes))


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (row(1.0, 0.001, passed=True), "holds"),
        (row(1.01, 0.001), "refuted"),  # 10 standard errors
        (row(1.1, 0.1), "undecided"),  # too noisy to see 2 %, and 1 standard error off
        (row(9.0, 0.1), "refuted"),  # as noisy, but 80 off
        (row(2.0, 0.0), "refuted"),  # exact
        (row(0.2, 0.1, relation="≤", passed=True), "holds"),
        (row(0.9, 0.1, relation="≤", passed=True), "undecided"),
        (row(1.1, 0.1, relation="≤"), "undecided"),
        (row(1.9, 0.1, relation="≤"), "refuted"),
        (row(1.0, 0.0, relation="≤", passed=True), "undecided"),
    ],
)
def test_what_a_row_says(result: LawResult, says: str) -> None:
    assert row_verdict(result) == says


def test_one_row_refutes_and_all_must_hold() -> None:
    holds, refutes, noisy = row(1.0, 0.001, passed=True), row(2.0, 0.0), row(1.1, 0.1)
    assert verdict([holds, noisy, refutes]) == "refuted"
    assert verdict([holds, noisy]) == "undecided"
    assert verdict([holds, holds]) == "holds"


def raises(d1: int) -> float:
    raise ZeroDivisionError(f"no {d1}")


@pytest.mark.parametrize(
    ("name", "formula", "message"),
    [
        ("sign-stp", lambda d1: d1, r"no problem 'sign-stp'; did you mean 'sign-step'\?$"),
        ("x", lambda d1: d1, r"no problem 'x'; the problems are features-at-init, sign-step"),
        ("sign-step", 3, r"formula=3 is no function; write one of any of .* d1: fan-in \[count\]"),
        ("sign-step", lambda n: n, r"gives a formula no argument n; it may take any of d1: fan-in"),
        ("sign-step", lambda *, d1, k: d1, r"gives a formula no argument k; it may take any of d1"),
        ("features-at-init", raises, r"raised ZeroDivisionError at d1=16, d2=2: no 16"),
        ("sign-step", lambda d1: float("nan"), r"at d1=16, d2=1 gave nan; need a finite number"),
        ("sign-step", lambda d1: "d1", r"at d1=16, d2=1 gave 'd1', not a number"),
        ("sign-step", lambda d1: d1 == 16, r"at d1=16, d2=1 gave True; need a finite number"),
        ("sign-step", lambda d1: torch.ones(2), r"gave a tensor of shape \(2,\), not a number"),
        ("spectral-condition", lambda w: w.sum(0), r"n_in=64 gave a tensor of shape \(64,\), not"),
        ("gradient-estimators", lambda f, x: f(x).mean(), r"gave \(\); return one gradient a samp"),
        ("gradient-estimators", lambda x: 3.0, r"gave float; return one gradient a sample, a tens"),
        ("gradient-estimators", lambda x: x / 0, r"gave NaN or inf among its samples"),
    ],
)
def test_bad_input_is_an_error(name: str, formula: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        t1.course.check(name, formula)


def test_a_formula_may_have_defaults_of_its_own() -> None:
    def formula(d1: int, constant: float = 2 / PI) -> float:
        return d1 * (1 - constant) + d1**2 * constant

    assert t1.course.check("sign-step", formula).verdict == "holds"


def test_a_formula_may_take_every_argument() -> None:
    answer = t1.course.check("rematerialization", lambda **values: values["n_layers"] * 50)
    assert [row.predicted for row in answer.results] == [500, 600, 550]
