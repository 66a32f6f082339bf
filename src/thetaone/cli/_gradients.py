"""``thetaone gradients``: every gradient estimator on toy problems, side by side."""

import shlex
import sys
from typing import Annotated

import typer

from thetaone.cli import _options as o
from thetaone.cli import _results as r
from thetaone.cli._options import completing

PROBLEMS = ("tucker", "grathwohl", "quadratic", "quadratic-100", "cos", "exp", "jump")


Problems = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROBLEM", autocompletion=completing(*PROBLEMS),
        help=f"{', '.join(PROBLEMS)}; all when none is given.",
    ),
]  # fmt: skip


def gradients(
    problems: Problems = None,
    samples: int = typer.Option(64, "--samples", help="Samples of one estimate."),
    repeats: int = typer.Option(1000, "--repeats", help="Independent estimates of each."),
    seed: o.Seed = 0,
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
) -> None:
    """Compare gradient estimators: bias, variance, cost, and which to take."""
    from thetaone.studies import bakeoff

    found = bakeoff(
        problems or [],
        n_samples=samples,
        repeats=repeats,
        seed=seed,
        report=report,
        command=shlex.join(["thetaone", *sys.argv[1:]]),
    )
    r.show(found, as_json=as_json, output=output)
    if report is not None and not as_json:
        print(f"\nreport: {report / 'index.html'}")
