"""``thetaone gradients``: every gradient estimator on toy problems, side by side."""

import shlex
import sys
from pathlib import Path

import typer


def gradients(
    problems: list[str] | None = typer.Argument(
        None,
        metavar="[PROBLEM]...",
        help="tucker, grathwohl, quadratic, quadratic-100, cos, exp, jump; all when none is given.",
    ),
    samples: int = typer.Option(64, "--samples", help="Samples of one estimate."),
    repeats: int = typer.Option(1000, "--repeats", help="Independent estimates of each."),
    seed: int = typer.Option(0, "--seed", help="Of the draws."),
    as_json: bool = typer.Option(False, "--json", help="Print the record as JSON."),
    report: Path | None = typer.Option(
        None, "--report", metavar="DIR", help="Folder for index.html and result.json."
    ),
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
    print(found.to_json() if as_json else found)
    if report is not None and not as_json:
        print(f"\nreport: {report / 'index.html'}")
