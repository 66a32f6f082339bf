"""The estimator bake-off: every estimator on problems whose gradient is known."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from thetaone.errors import InputError
from thetaone.estimators import (
    Problem,
    compare_estimators,
    cosine,
    exponential_of_sum,
    jump,
    quadratic,
    quadratic_location,
    tucker,
)
from thetaone.records import EstimatorBakeoff, EstimatorComparison, did_you_mean
from thetaone.report import ensure_writable, write_report
from thetaone.studies._environment import environment
from thetaone.sweeps import whole_numbers

# name on the command line -> the problem
NAMED: dict[str, Callable[[], Problem]] = {
    "tucker": lambda: tucker(0.5, t=0.45),
    "grathwohl": lambda: tucker(0.0, t=0.499),
    "quadratic": lambda: quadratic(10),
    "quadratic-100": lambda: quadratic_location(100, mu=0.1),
    "cos": cosine,
    "exp": exponential_of_sum,
    "jump": jump,
}


def bakeoff(
    names: Sequence[str] = (),
    *,
    n_samples: int = 64,
    repeats: int = 1000,
    seed: int = 0,
    report: str | Path | None = None,
    command: str = "",
) -> EstimatorBakeoff:
    """Compare all estimators on named problems.

    Args:
        names: Which; empty for all of ``NAMED``.
        n_samples: Samples of one estimate [count].
        repeats: Estimates of each [count].
        seed: Of the draws.
        report: Folder for ``index.html`` and ``result.json``.
        command: How to get the result again, for the report.

    Returns:
        One comparison a problem, judged against the closed form (``jump`` against leave-one-out,
        as on a problem whose gradient nobody knows).

    Raises:
        InputError: A name that is not in ``NAMED``.
        ReportError: The report cannot be written; found out before anything is measured.

    Examples:
        >>> found = bakeoff(["grathwohl"], n_samples=8, repeats=100)
        >>> found.comparison("grathwohl").row("DisARM").variance
        0.0
    """
    unknown = [name for name in names if name not in NAMED]
    if unknown:
        raise InputError(
            f"no problem {unknown[0]!r}; choose from {', '.join(NAMED)}"
            f"{did_you_mean(unknown[0], NAMED)}"
        )
    (seed,) = whole_numbers("seed", [seed], least=0)
    folder = None if report is None else ensure_writable(report)
    started = time.perf_counter()
    comparisons: list[EstimatorComparison] = []
    for name in names or NAMED:
        problem = NAMED[name]()
        comparisons.append(
            compare_estimators(
                problem.f,
                problem.make,
                problem.params,
                n_samples=n_samples,
                repeats=repeats,
                reference=problem.gradient if problem.continuous else None,
                generator=torch.Generator().manual_seed(seed),
                problem=name,
            )
        )
    found = EstimatorBakeoff(
        comparisons=tuple(comparisons), command=command, environment=environment(),
        wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
    if folder is not None:
        write_report(found, folder)
    return found
