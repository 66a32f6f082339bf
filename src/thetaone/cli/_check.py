"""``thetaone check``: does every layer keep its size while the model grows?"""

from pathlib import Path

import typer

from thetaone.cli._numbers import parse_integers


def check(
    factory: str = typer.Argument(help="A file, a dotted module, or a bundled task."),
    widths: str = typer.Option("64,128,256", help="Widths to compare."),
    depths: str = typer.Option("", help="Depths to compare instead, at one width; model(w, d)."),
    lr: float = typer.Option(2**-7, help="Learning rate at the smallest width."),
    optimizer: str = typer.Option("AdamW", help="AdamW, SGD, Lion, …, or a mixture: Muon+AdamW."),
    parametrization: str = typer.Option("mup", help="mup, or sp for plain torch."),
    seeds: int = typer.Option(3, help="Trainings at each width."),
    json_path: Path | None = typer.Option(None, "--json", help="Also write the record here."),
) -> None:
    """Train a few steps at each width (or depth) and judge every layer; exit 1 when one fails."""
    from thetaone.studies import coordinate_check

    verdict = coordinate_check(
        factory,
        widths=parse_integers(widths, option="--widths"),
        depths=parse_integers(depths, option="--depths") if depths else (),
        lr=lr,
        optimizer=optimizer,
        parametrization=parametrization,
        seeds=seeds,
    )
    print(verdict)
    if json_path is not None:
        verdict.to_json(json_path)
    if not verdict.passed:
        raise typer.Exit(1)
