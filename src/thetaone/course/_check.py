"""``check``: a reader's formula against the measurement of a problem."""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from thetaone.course import problems
from thetaone.course._formula import Formula, Problem, formula_for
from thetaone.course._verdict import verdict
from thetaone.errors import InputError
from thetaone.records import CourseAnswer

_PROBLEMS: dict[str, Problem] = {
    problem.law.name: problem
    for problem in (
        problems.FEATURES,
        problems.SIGN_STEP,
        problems.FIGURE_ONE,
        problems.ADAM_TABLE,
        problems.SPECTRAL_CONDITION,
        problems.GRADIENT_ESTIMATORS,
        problems.REMATERIALIZATION,
    )
}
SAME = 1e-6  # relative distance at which two formulas say the same


def check(name: str, formula: Callable[..., Any]) -> CourseAnswer:
    """Measure one of the source problems and say whether a formula holds.

    A formula takes those of its problem's arguments that it depends on, by name:

    | problem | arguments | what it returns |
    |---|---|---|
    | ``features-at-init`` | ``d1 d2`` | E‖Wx‖²_RMS |
    | ``sign-step`` | ``d1 d2`` | E‖sign(g xᵀ)x‖²_RMS |
    | ``figure-1`` | ``width_ratio`` | factor on Adam's rate that keeps the best rate in place |
    | ``adam-table`` | ``width_ratio`` | factor on Adam's rate that keeps the first update's size |
    | ``spectral-condition`` | ``w n_out n_in`` | the largest ‖Wh‖_RMS/‖h‖_RMS |
    | ``gradient-estimators`` | ``f slope x mu sigma noise`` | samples of ∂/∂µ E f(x) |
    | ``rematerialization`` | ``n_layers keep_every forward_ns load_ns`` | ns of a backward pass |

    Samples, seeds and the limits of a verdict are those of the laws: within 4.5 standard errors,
    each at most 0.2 % of the measured value (of estimators, 0.5 %). Seconds on one core.

    Args:
        name: The problem.
        formula: The reader's function.

    Returns:
        ``holds``, ``refuted`` or ``undecided``, the measured rows, and for a formula that is a
        known mistake the mistake in words.

    Raises:
        InputError: No such problem; an argument that it has not; a formula that raises or does not
            return what it should.

    Examples:
        >>> answer = check("rematerialization", lambda n_layers, load_ns: n_layers * load_ns)
        >>> answer.verdict
        'refuted'
    """
    if name not in _PROBLEMS:
        meant = get_close_matches(name, _PROBLEMS, n=1)
        hint = (
            f"did you mean {meant[0]!r}?" if meant else f"the problems are {', '.join(_PROBLEMS)}"
        )
        raise InputError(f"no problem {name!r}; {hint}")
    problem = _PROBLEMS[name]
    answer = formula_for(problem, formula)
    results = tuple(problem.measure(answer))
    return CourseAnswer(
        problem=name,
        question=problem.law.title,
        verdict=verdict(results),
        results=results,
        mistake=_mistake(problem, answer),
    )


def _mistake(problem: Problem, formula: Formula) -> str:
    """The tempting reading that says the same numbers, empty when none does."""
    numbers = problem.numbers(formula)
    for words, reading in problem.readings.items():
        other = problem.numbers(formula_for(problem, reading))
        if all(math.isclose(a, b, rel_tol=SAME) for a, b in zip(numbers, other, strict=True)):
            return words
    return ""
