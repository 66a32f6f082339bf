"""``thetaone laws``: predicted, measured, standard error and verdict of each law."""

from typing import Annotated

import typer

from thetaone.cli import _results as r
from thetaone.cli._options import completing

LAWS = (
    "features-at-init", "sign-step", "figure-1", "adam-table", "spectral-condition",
    "gradient-estimators", "rematerialization",
)  # fmt: skip


Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Measure this law only; may be repeated.",
        autocompletion=completing(*LAWS),
    ),
]  # fmt: skip


def laws(
    only: Only = None,
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
) -> None:
    """Measure the laws the library stands on; exit 1 when one fails."""
    from thetaone.laws import verify_laws
    from thetaone.records import MeasuredLaws

    measured = MeasuredLaws(results=tuple(verify_laws(only or None)))
    r.show(measured, as_json=as_json, output=output)
    r.draw_page(measured, report, quiet=as_json)
    if not measured.passed:
        raise typer.Exit(1)
