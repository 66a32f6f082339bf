"""``thetaone doctor``: can the main job run here, and what would the rest need?"""

from pathlib import Path

import typer

from thetaone.cli import _results as r


def doctor(
    folder: Path = typer.Argument(Path(), metavar="DIR", help="Where a job would write."),
    as_json: r.Json = False,
    output: r.Output = None,
) -> None:
    """Look at versions, cores, disk and extras; exit 1 when the main job could not run."""
    from thetaone.studies import diagnose

    diagnosis = diagnose(folder)
    r.show(diagnosis, as_json=as_json, output=output)
    if not diagnosis.passed:
        raise typer.Exit(1)
