"""``thetaone sweep``: the best learning rate of each width, and how far it moves."""

from pathlib import Path

import typer

from thetaone.cli._numbers import parse_integers


def sweep(
    task: str = typer.Argument(help="Bundled task (lm, digits), file.py, or dotted module."),
    widths: str | None = typer.Option(None, help="E.g. 32,64,128; the task's own by default."),
    lrs: str | None = typer.Option(None, help="E.g. 2^-12:2^-3 (octaves), or 0.001,0.01."),
    seeds: str | None = typer.Option(None, help="E.g. 0,1; two or more give an interval."),
    steps: int | None = typer.Option(None, help="Steps of each training."),
    parametrization: str = typer.Option("mup", help="mup or sp."),
    optimizer: str = typer.Option("AdamW", help="AdamW, SGD, Lion, …, or a mixture: Muon+AdamW."),
    base_width: int | None = typer.Option(None, help="The smallest width by default."),
    engine: str = typer.Option("auto", help="auto, serial, processes, stacked or ray."),
    processes: int | None = typer.Option(None, help="Workers; the cores at hand by default."),
    storage: str = typer.Option(
        "sweep.journal", help="Journal file or database URL; found trials are not trained again."
    ),
    output: Path | None = typer.Option(None, help="Also write the result as JSON here."),
) -> None:
    """Train every width, learning rate and seed; print each width's best rate and the drift."""
    from thetaone.cli._progress import Progress
    from thetaone.studies import sweep as run
    from thetaone.sweeps import parse_lrs

    with Progress() as progress:
        result = run(
            task,
            widths=None if widths is None else parse_integers(widths, option="--widths"),
            lrs=None if lrs is None else parse_lrs(lrs),
            seeds=None if seeds is None else parse_integers(seeds, option="--seeds"),
            steps=steps,
            parametrization=parametrization,
            optimizer=optimizer,
            base_width=base_width,
            engine=engine,
            n_processes=processes,
            storage=storage,
            progress=progress,
        )
    print(result)
    if output is not None:
        result.to_json(output)
