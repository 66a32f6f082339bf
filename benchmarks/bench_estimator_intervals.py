"""Do limits and intervals hold at small samples? False "biased" and coverage: one JSON line each.

False alarms: pathwise and leave-one-out on a Normal mean, f = Σx², judged against the exact
gradient; both are unbiased by proof, so that every "biased" is false. Coverage: Student's 95 %
intervals of mean gradients (``EstimatorRow.interval``) and of values (``Expectation.interval``).

Run: ``python benchmarks/bench_estimator_intervals.py`` (about seven minutes on one core;
``--trials 300`` for a shorter run).
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from origin import record
from torch import distributions as D

import thetaone as t1
from thetaone.estimators import LeaveOneOut, Pathwise
from thetaone.estimators._parameters import family
from thetaone.estimators.distributions import ScoreCheck
from thetaone.estimators.judging._measurement import Candidate, Setting, moments
from thetaone.estimators.judging._trust import Reference, judge
from thetaone.records import student_interval

REPEATS, DIMENSIONS = (2, 3, 5, 10, 20), (1, 20, 200)
ESTIMATES = (3, 10, 30, 100, 1000)
SAMPLES = (16, 64, 256, 1024)


def setting(d: int, repeats: int, n_samples: int, generator: torch.Generator) -> Setting:
    """The quadratic on N(½, I) of d dimensions."""
    bound = family(
        lambda mu: D.Independent(D.Normal(mu, 1.0), 1), torch.full((d,), 0.5, dtype=torch.float64)
    )
    return Setting(lambda x: (x**2).sum(-1), bound, n_samples, repeats, generator, True, 2**27)


def false_alarms(trials: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Share of rows called biased at each (repeats, d)."""
    rows: list[dict[str, Any]] = []
    for repeats in REPEATS:
        for d in DIMENSIONS:
            where = setting(d, repeats, 16, generator)
            truth = Reference("exact", torch.ones(d, dtype=torch.float64))
            alarms = 0
            for _ in range(trials):
                for estimator in (Pathwise(), LeaveOneOut()):
                    measured = moments(Candidate(estimator, 16), where)
                    verdict = judge(measured, truth, estimator, ScoreCheck()).verdict
                    alarms += verdict == "biased"
            rows.append({"repeats": repeats, "d": d, "rows": 2 * trials, "biased": alarms})
    return rows


def coverage_of_means(trials: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Share of coordinates of the mean gradient whose interval holds the truth."""
    rows: list[dict[str, Any]] = []
    for estimator in (Pathwise(), LeaveOneOut()):
        for repeats in ESTIMATES:
            inside = 0
            for _ in range(trials):
                found = moments(Candidate(estimator, 16), setting(2, repeats, 16, generator))
                pairs = zip(found.mean.tolist(), found.stderr.tolist(), strict=True)
                for mean, stderr in pairs:
                    low, high = student_interval(mean, stderr, repeats - 1)
                    inside += low <= 1.0 <= high
            share = inside / (2 * trials)
            rows.append({"estimator": estimator.name, "repeats": repeats, "covered": share})
    return rows


Case = tuple[Callable[[], D.Distribution], Callable[[torch.Tensor], torch.Tensor], float]


def cases() -> dict[str, Case]:
    """Distribution, f, E f."""
    ten, one = torch.zeros(10, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return {
        "Σx of 10": (lambda: D.Independent(D.Normal(ten, 1.0), 1), lambda x: x.sum(-1), 0.0),
        "Σx² of 10": (lambda: D.Independent(D.Normal(ten, 1.0), 1), lambda x: (x**2).sum(-1), 10.0),
        "cos x": (lambda: D.Normal(0.5 * one, one), torch.cos, 0.5322807302156708),
        "b, p = ½": (lambda: D.Bernoulli(0.5 * one), lambda b: b, 0.5),
        "x², skewed": (lambda: D.Normal(0 * one, one), torch.square, 1.0),
        "exp x, very skewed": (lambda: D.Normal(0 * one, one), torch.exp, 1.6487212707001282),
    }


def coverage_of_values(trials: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Share of intervals of E f that hold it."""
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for name, (make, f, truth) in cases().items():
            for n in SAMPLES:
                inside = 0
                for _ in range(trials):
                    e = t1.expectation(
                        f, make(), estimator=LeaveOneOut(), n_samples=n, generator=generator
                    )
                    low, high = e.interval()
                    inside += bool(low <= truth <= high)
                rows.append({"f": name, "n_samples": n, "covered": inside / trials})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    tables: dict[str, list[dict[str, Any]]] = {
        "false alarms": false_alarms(options.trials, generator),
        "means": coverage_of_means(4 * options.trials, generator),
        "values": coverage_of_values(10 * options.trials, generator),
    }
    for what, rows in tables.items():
        for row in rows:
            figures = {key: row.pop(key) for key in ("biased", "covered") if key in row}
            record("estimator_intervals", {"what": what, "trials": options.trials} | row, figures)


if __name__ == "__main__":
    main()
