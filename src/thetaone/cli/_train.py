"""``thetaone train``: the target of a recipe, from where it was stopped."""

from pathlib import Path

import typer

from thetaone.cli import _results as r


def train(
    recipe: Path = typer.Argument(
        metavar="RECIPE.json", help="Written by `thetaone transfer`; or the folder that it lies in."
    ),
    task: str | None = typer.Option(None, help="The task; the one the recipe names by default."),
    report: r.Report = None,
    minutes: float = typer.Option(5.0, help="Minutes between two checkpoints."),
    evaluate_every: int = typer.Option(
        0, help="Steps between two evaluations, written to curve.jsonl; 0 never."
    ),
    monitor_every: int = typer.Option(
        0, help="Steps between two readings of every layer, written there too; 0 never."
    ),
    parallel: str = typer.Option(
        "ddp", help="Under torchrun: ddp, or fsdp, which shares the parameters out."
    ),
) -> None:
    """Train a recipe's target and keep its weights; a killed training goes on where it was."""
    from thetaone.cli._progress import Progress
    from thetaone.studies import Watch, train_recipe

    recipe = r.in_folder(recipe, "recipe.json")
    with Progress() as progress:
        answer = train_recipe(
            recipe, task=task, folder=report, checkpoint_minutes=minutes,
            evaluate_every=evaluate_every, monitor_every=monitor_every, parallel=parallel,
            on_step=lambda told: Watch(progress).steps("target", told.n_steps),
        )  # fmt: skip
    if answer is None:  # one of torchrun's processes, and not the first
        return
    trial, evaluation = answer
    print(f"width {trial.width}: {trial.status}, loss {trial.final_loss:.4f}")
    if evaluation is not None:
        print(f"evaluation {evaluation:.4f}")
    print(f"weights in {(report or recipe.parent) / 'model.safetensors'}")
