"""``thetaone report``: the page of a saved result, drawn again."""

from pathlib import Path

import typer


def report(
    result: Path = typer.Argument(
        ..., metavar="RESULT.json", help="What --output wrote, or a report's result.json."
    ),
    folder: Path = typer.Option(Path("out"), "--report", metavar="DIR", help="Where it goes."),
    interactive: bool = typer.Option(
        False, "--interactive", help="Figures to zoom and hover over: plotly.js, 5 MB more."
    ),
) -> None:
    """Draw the page of a saved result again, of any command, without computing anything."""
    from thetaone.report import ensure_writable, load_result, write_report

    stored = load_result(result)
    ensure_writable(folder)
    print(write_report(stored, folder, interactive=interactive))
