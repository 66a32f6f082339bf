"""``thetaone check``: does every layer keep its size while the model grows?"""

from pathlib import Path

import typer

from thetaone.cli import _options as o


def check(
    task: o.Task,
    widths: str = typer.Option("64,128,256", help="Widths to compare."),
    depths: str = typer.Option("", help="Depths to compare instead, at one width; model(w, d)."),
    lr: float = typer.Option(2**-7, help="Learning rate at the anchor."),
    target: int | None = typer.Option(None, help="Width of the large model; compared too."),
    anchor: o.Anchor = None,
    optimizer: o.Optimizer = None,
    weight_decay: o.WeightDecay = None,
    beta2: o.Beta2 = None,
    option: o.Option = None,
    parametrization: str = typer.Option("mup", help="mup, or sp for plain torch."),
    seeds: int = typer.Option(3, help="Trainings at each width."),
    json_path: Path | None = typer.Option(None, "--json", help="Also write the record here."),
    config: o.Config = None,
) -> None:
    """Train a few steps at each width (or depth) and judge every layer; exit 1 when one fails."""
    from thetaone.studies import coordinate_check

    verdict = coordinate_check(
        task, widths=o.integers(widths, "--widths") or (),
        depths=o.integers(depths, "--depths") or (), lr=lr, target=target, base_width=anchor,
        optimizer=optimizer, parametrization=parametrization, seeds=seeds,
        **o.optimizer_options(weight_decay, beta2, option),
    )  # fmt: skip
    print(verdict)
    if json_path is not None:
        verdict.to_json(json_path)
    if not verdict.passed:
        raise typer.Exit(1)
