"""``thetaone transfer``: the whole job, from small sweeps to a trained target and a report."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from thetaone.records import TransferResult


def transfer(
    task: str = typer.Argument(
        help="A bundled task (lm, digits), the path of a task file, or a dotted module."
    ),
    target: int = typer.Option(help="Width of the model to train at the end."),
    widths: str = typer.Option(
        "", help="Widths to tune at, e.g. 32,64,128; the task's own if empty."
    ),
    memory: str = typer.Option("", help="Bytes for all of the target's training, e.g. 64MiB."),
    report: Path | None = typer.Option(None, help="Folder for index.html and result.json."),
    optimizer: str = typer.Option("AdamW", help="AdamW, SGD, Lion, …, or a mixture: Muon+AdamW."),
    lrs: str = typer.Option("", help="Learning rates: 2^-10:2^-3 (octaves), or a list."),
    seeds: str = typer.Option("", help="Seeds, e.g. 0,1; the task's own if empty."),
    steps: int | None = typer.Option(
        None, help="Steps of every training; the task's own if empty."
    ),
    base: int | None = typer.Option(None, help="Base width; the smallest if empty."),
    engine: str = typer.Option("auto", help="auto, serial, processes, stacked or ray."),
    storage: str = typer.Option(
        "", help="Journal file or database URL; REPORT/sweep.journal if empty."
    ),
) -> None:
    """Find the learning rate on small models, prove that it transfers, train the large one."""
    from thetaone.cli._numbers import parse_integers
    from thetaone.cli._progress import Progress
    from thetaone.studies import transfer as study
    from thetaone.sweeps import parse_lrs

    with Progress() as progress:
        result = study(
            task,
            widths=parse_integers(widths, option="--widths") if widths else None,
            target=target,
            memory=memory or None,
            report=report,
            optimizer=optimizer,
            lrs=parse_lrs(lrs) if lrs else None,
            seeds=parse_integers(seeds, option="--seeds") if seeds else None,
            steps=steps,
            base_width=base,
            engine=engine,
            storage=storage or None,
            command=shlex.join(["thetaone", *sys.argv[1:]]),
            progress=progress,
        )
    _print(result, report)


def _print(result: "TransferResult", report: Path | None) -> None:
    print(result)
    if report is not None:
        print(f"{'report':<22}{report / 'index.html'}")
