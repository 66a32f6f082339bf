"""``thetaone transfer``: the whole job, from small sweeps to a trained target and a report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from thetaone.cli import _options as o
from thetaone.cli import _results as r

if TYPE_CHECKING:
    from thetaone.records import CoordinateCheck, TransferResult


def transfer(
    task: o.Task,
    target: o.RequiredTarget,
    target_depth: o.TargetDepth = None,
    widths: o.Widths = None,
    depths: o.Depths = None,
    memory: str = typer.Option("", help="Bytes for all of the target's training, e.g. 64MiB."),
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
    lrs: o.Lrs = None,
    seeds: o.Seeds = None,
    steps: o.Steps = None,
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
    tune: str = typer.Option(
        "", help="What to tune small with the rate: weight_decay,beta2,init,readout,embedding, …"
    ),
    tune_trials: int = typer.Option(500, help="Trainings of small models that tuning may take."),
    engine: o.Engine = "auto",
    storage: o.Storage = "",
    target_steps: int | None = typer.Option(
        None, help="Steps of the target's training; those of --steps by default."
    ),
    force: bool = typer.Option(False, help="Train the target though its check failed."),
    config: o.Config = None,
) -> None:
    """Find the learning rate on small models, prove that it transfers, train the large one."""
    from thetaone.cli._interrupts import command_line
    from thetaone.cli._progress import Progress
    from thetaone.studies import transfer as study
    from thetaone.sweeps import parse_lrs

    r.require_apart(output, storage)
    with Progress() as progress:
        result = study(
            task, target=target, target_depth=target_depth,
            widths=o.integers(widths, "--widths"), depths=o.integers(depths, "--depths"),
            memory=memory or None, report=report,
            lrs=parse_lrs(lrs) if lrs else None, seeds=o.integers(seeds, "--seeds"), steps=steps,
            base_width=base, optimizer=optimizer, schedule=schedule, clip=clip,
            precision=precision, accumulate=accumulate, search=search,
            choose=choose, tune=[name.strip() for name in tune.split(",") if name.strip()],
            tune_trials=tune_trials, engine=engine, storage=storage or None,
            target_steps=target_steps, confirm=None if force else _confirm,
            command=command_line(), progress=progress,
            **o.prescription_choices(choice),
            **o.optimizer_options(weight_decay, beta2, option),
        )  # fmt: skip
    r.show(result, as_json=as_json, output=output)
    if report is not None and not as_json:
        _print_files(result, report)


def _confirm(check: "CoordinateCheck") -> bool:
    """Ask before a target is trained whose check failed; where nobody can answer, go on."""
    if not sys.stdin.isatty():
        print(f"thetaone: the coordinate check {check.outcome}; going on", file=sys.stderr)
        return True
    return typer.confirm(f"The coordinate check {check.outcome}. Train the target?")


def _print_files(result: "TransferResult", report: Path) -> None:
    print(f"{'report':<22}{report / 'index.html'}")
    print(f"{'model':<22}{report / 'model.safetensors'}")
    if result.recipe is not None:
        print(f"\n{result.recipe.snippet(path=str(report / 'recipe.json'))}")
