"""``thetaone plan``: a task's model within a memory budget, or equal layers by hand."""

from pathlib import Path
from typing import Any

import typer

from thetaone.cli import _options as o
from thetaone.cli import _results as r
from thetaone.errors import InputError
from thetaone.records import parse_seconds

SHOWING = ("as_json", "output", "report", "plot")
# options of each way to call the command, beside those of what is shown
LAYERS = ("length", "keep_every", "forward", "load")
TASK = ("task", "width", "depth", "budget", "blocks", "disk", "optimizer", "memory_units")
STORED = ("load_plan", "budget", "memory_units")


def plan(
    context: typer.Context,
    task: str | None = typer.Argument(
        None, help="A bundled task, a file or a module; or give --length."
    ),
    width: o.Width = None,
    depth: int | None = typer.Option(None, help="Depth, for a task whose model takes one."),
    budget: str | None = typer.Option(
        None, help="For the chain of blocks: bytes, 2GiB, or a share of store-all: 50%, 0.5."
    ),
    blocks: str | None = typer.Option(None, help="Name of the list of blocks, e.g. model.layers."),
    disk: str | None = typer.Option(None, help="Directory of a second tier; measured there."),
    optimizer: o.Optimizer = None,
    memory_units: int = typer.Option(500, help="Least levels of memory in the planner's table."),
    load_plan: Path | None = typer.Option(
        None, "--from", help="A plan that --output or --report wrote; --budget plans it anew."
    ),
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
    plot: r.Plot = None,
    length: int | None = typer.Option(None, help="Equal layers instead of a task: how many."),
    keep_every: int = typer.Option(1, help="Keep the activation after every so many layers."),
    forward: str = typer.Option("1s", help="Time of one forward of one layer."),
    load: str = typer.Option("0s", help="Time of one load of a kept activation."),
) -> None:
    """Plan the memory of a training step: time against bytes, and the fastest plan that fits."""
    if load_plan is not None:
        _require_only(context, STORED, "--from holds its own measurement: with it go --budget")
        record = _stored(r.in_folder(load_plan, "result.json"), budget, memory_units)
    elif length is not None:
        _require_only(context, LAYERS, "--length plans equal layers by hand: with it go "
                      "--keep-every, --forward, --load")  # fmt: skip
        from thetaone.rematerialization import compare_kept

        record = compare_kept(
            length,
            keep_every,
            forward_seconds=parse_seconds(forward, where="--forward"),
            load_seconds=parse_seconds(load, where="--load"),
        )
    else:
        if task is None or width is None:
            raise InputError(
                "plan needs a task and the width of its model, e.g. thetaone plan "
                f"{task or 'lm'} --width 128; or --length for layers by hand"
            )
        _require_only(context, TASK, "a task is measured: with it go --width, --depth, --budget, "
                      "--blocks, --disk, --optimizer, --memory-units")  # fmt: skip
        from thetaone.studies import memory_frontier

        record = memory_frontier(
            task,
            width=width,
            depth=depth,
            budget=budget,
            blocks=blocks,
            memory_units=memory_units,
            disk=disk,
            optimizer=optimizer or "AdamW",
        )
    r.show(record, as_json=as_json, output=output)
    r.draw_page(record, report, quiet=as_json)
    r.draw_plot(record, plot)


def _stored(path: Path, budget: str | None, memory_units: int) -> Any:
    """A plan read from a file, planned anew if there is a budget."""
    from thetaone.records import MemoryPlan
    from thetaone.studies import planned_again

    record = MemoryPlan.from_json(path)
    if budget is None:
        return record
    return planned_again(record, budget, memory_units=memory_units)


def _require_only(context: typer.Context, names: tuple[str, ...], rule: str) -> None:
    """Refuse options on the command line that this way to call it would ignore."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in (*names, *SHOWING) or source is None or source.name != "COMMANDLINE":
            continue
        shown = repr(context.params[name]) if name == "task" else max(parameter.opts, key=len)
        raise InputError(f"{rule}, --json, --output, --report, --plot; leave out {shown}")
