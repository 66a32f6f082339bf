"""``thetaone report``: the page of a saved result, drawn again."""

from pathlib import Path

import typer

from thetaone.cli import _results as r


def redraw(
    result: Path = typer.Argument(
        ..., metavar="RESULT.json", help="What --output wrote, or a report's result.json or folder."
    ),
    report: r.Report = Path("out"),
    interactive: bool = typer.Option(
        False, "--interactive", help="Figures to zoom and hover over: plotly.js, 5 MB more."
    ),
) -> None:
    """Draw the page of a saved result again, of any command, without computing anything."""
    from thetaone.report import load_result, write_report

    stored = load_result(r.in_folder(result, "result.json"))
    print(write_report(stored, report or Path("out"), interactive=interactive))
