"""``thetaone sweep``: the best learning rate of each width, and how far it moves."""

import typer

from thetaone.cli import _options as o
from thetaone.cli import _results as r


def sweep(
    task: o.Task,
    widths: o.Widths = None,
    depths: o.Depths = None,
    lrs: o.Lrs = None,
    seeds: o.Seeds = None,
    axis: o.Axis = None,
    steps: o.Steps = None,
    parametrization: o.Parametrization = "mup",
    target: o.Target = None,
    target_depth: o.TargetDepth = None,
    base: o.Base = None,
    optimizer: o.Optimizer = None,
    weight_decay: o.WeightDecay = None,
    beta2: o.Beta2 = None,
    option: o.Option = None,
    choice: o.Choice = None,
    schedule: o.Schedule = None,
    clip: o.Clip = None,
    precision: o.Precision = None,
    accumulate: o.Accumulate = None,
    search: o.Search = "grid",
    choose: o.Choose = "loss",
    engine: o.Engine = "auto",
    processes: int | None = typer.Option(None, help="Workers; the cores at hand by default."),
    storage: o.Storage = "sweep.journal",
    fresh: bool = typer.Option(False, "--fresh", help="Train anew what is stored."),
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
    config: o.Config = None,
) -> None:
    """Train every size, learning rate and seed; print each size's best rate and the drift."""
    from thetaone.cli._progress import Progress
    from thetaone.studies import sweep as run
    from thetaone.sweeps import parse_lrs

    r.require_apart(output, storage)
    with Progress() as progress:
        result = run(
            task, widths=o.integers(widths, "--widths"), depths=o.integers(depths, "--depths"),
            lrs=None if lrs is None else parse_lrs(lrs), seeds=o.integers(seeds, "--seeds"),
            axes=o.axes(axis), steps=steps, parametrization=parametrization, target=target,
            target_depth=target_depth, base_width=base, optimizer=optimizer, schedule=schedule,
            clip=clip, precision=precision, accumulate=accumulate, search=search,
            choose=choose, engine=engine,
            n_processes=processes, storage=storage, fresh=fresh,
            progress=progress,
            **o.prescription_choices(choice),
            **o.optimizer_options(weight_decay, beta2, option),
        )  # fmt: skip
    r.show(result, as_json=as_json, output=output)
    r.draw_page(result, report, quiet=as_json)
