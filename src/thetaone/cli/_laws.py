"""``thetaone laws``: predicted, measured, standard error and verdict of each law."""

import json

import typer


def laws(
    only: list[str] | None = typer.Option(
        None, "--only", metavar="NAME", help="Measure this law only; may be repeated."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the results as JSON."),
) -> None:
    """Measure the laws the library stands on; exit 1 when one fails."""
    from thetaone.laws import verify_laws
    from thetaone.records import laws_table

    results = verify_laws(only or None)
    if as_json:
        print(json.dumps([result.model_dump(mode="json") for result in results], indent=2))
    else:
        print(laws_table(results))
        failed = sum(not result.passed for result in results)
        print(f"{len(results) - failed} of {len(results)} measurements agree with their law")
    if not all(result.passed for result in results):
        raise typer.Exit(1)
