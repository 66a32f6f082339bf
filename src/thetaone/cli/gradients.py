"""``thetaone gradients``: every gradient estimator on toy problems, side by side."""

import json
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
    as_json: bool = typer.Option(False, "--json", help="Print the comparisons as JSON."),
    report: Path | None = typer.Option(
        None, "--report", metavar="DIR", help="Also write a figure and the data of each problem."
    ),
) -> None:
    """Compare gradient estimators: bias, variance, cost, and which to take."""
    from thetaone.studies.estimator_bakeoff import bakeoff

    if report is not None:
        from thetaone.report.write import ensure_writable

        ensure_writable(report)
    comparisons = bakeoff(problems or [], n_samples=samples, repeats=repeats, seed=seed)
    if as_json:
        print(json.dumps([found.model_dump(mode="json") for found in comparisons], indent=2))
    else:
        print("\n\n".join(str(found) for found in comparisons))
    for found in comparisons if report is not None else ():
        assert report is not None
        found.to_json(report / f"gradients-{found.problem}.json")
        found.plot().savefig(report / f"gradients-{found.problem}.png", dpi=120)
    if report is not None and not as_json:
        print(f"\nfigures and data are in {report}")
