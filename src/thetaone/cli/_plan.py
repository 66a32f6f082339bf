"""``thetaone plan``: a task's model within a memory budget, or equal layers by hand."""

from pathlib import Path

import typer

from thetaone.errors import InputError
from thetaone.records import parse_seconds


def plan(
    task: str | None = typer.Argument(
        None, help="A bundled task, a file or a module; or give --length."
    ),
    width: int | None = typer.Option(None, help="Width of the task's model."),
    depth: int | None = typer.Option(None, help="Depth, for a task whose model takes one."),
    budget: str | None = typer.Option(
        None, help="For the chain of blocks: bytes, 2GiB, or a fraction of store-all such as 0.5."
    ),
    blocks: str | None = typer.Option(None, help="Name of the list of blocks, e.g. model.layers."),
    disk: str | None = typer.Option(None, help="Directory of a second tier; measured there."),
    optimizer: str = typer.Option("AdamW", help="Whose state is added to the account."),
    memory_units: int = typer.Option(500, help="Levels of memory in the planner's table."),
    load_plan: Path | None = typer.Option(
        None, "--from", help="A plan that --json wrote earlier; --budget plans it anew."
    ),
    json: Path | None = typer.Option(None, help="Write the plan to this file."),
    plot: Path | None = typer.Option(None, help="Draw the frontier to this file."),
    length: int | None = typer.Option(None, help="Equal layers instead of a task: how many."),
    keep_every: int = typer.Option(1, help="Keep the activation after every so many layers."),
    forward: str = typer.Option("1s", help="Time of one forward of one layer."),
    load: str = typer.Option("0s", help="Time of one load of a kept activation."),
) -> None:
    """Plan the memory of a training step: time against bytes, and the fastest plan that fits."""
    if load_plan is not None:
        if any(given is not None for given in (task, width, depth, blocks, disk, length)):
            raise InputError(
                "--from holds its own measurement: with it go --budget, --json, --plot"
            )
        from thetaone.records import MemoryPlan
        from thetaone.studies import planned_again

        record = MemoryPlan.from_json(load_plan)
        if budget is not None:
            record = planned_again(record, _budget(budget), memory_units=memory_units)
    elif length is not None:
        from thetaone.rematerialization import compare_kept

        record = compare_kept(
            length,
            keep_every,
            forward_seconds=parse_seconds(forward, where="--forward"),
            load_seconds=parse_seconds(load, where="--load"),
        )
    else:
        if task is None or width is None:
            raise InputError("plan needs a task and --width, or --length for layers by hand")
        from thetaone.studies import memory_frontier

        record = memory_frontier(
            task,
            width=width,
            depth=depth,
            budget=None if budget is None else _budget(budget),
            blocks=blocks,
            memory_units=memory_units,
            disk=disk,
            optimizer=optimizer,
        )
    print(record)
    if json is not None:
        _write(record.to_json(), json)
    if plot is not None:
        try:
            record.plot().savefig(plot)
        except (OSError, ValueError) as error:  # a format that matplotlib does not know
            raise InputError(f"--plot={plot}: cannot be written: {error}") from error


def _budget(text: str) -> str | float:
    """A plain number up to 1 with a point in it is a fraction of store-all."""
    if "." not in text or not text.replace(".", "", 1).isdigit():
        return text
    return float(text)


def _write(text: str, path: Path) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json={path}: cannot be written: {error}") from error
