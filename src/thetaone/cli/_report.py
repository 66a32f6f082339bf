"""``thetaone report``: the page of a saved result, drawn again."""

from pathlib import Path

import typer


def report(
    result: Path = typer.Argument(..., metavar="RESULT.json", help="Saved by `thetaone transfer`."),
    out: Path = typer.Option(Path("out"), "--out", metavar="DIR", help="Where the page goes."),
) -> None:
    """Draw the report of a saved result again, without training anything."""
    from thetaone.records import TransferResult
    from thetaone.report import ensure_writable, write_report

    ensure_writable(out)
    print(write_report(TransferResult.from_json(result), out))
