"""``thetaone audit``: which objective a trainer's settings ascend."""

from pathlib import Path
from typing import Annotated

import typer

from thetaone.cli import _results as r
from thetaone.cli._options import completing

Trainer = Annotated[
    str,
    typer.Option(
        help="grpo, rloo, verl or torchrl; told by the names if left.",
        autocompletion=completing("grpo", "rloo", "verl", "torchrl"),
    ),
]


def audit(
    settings: Path = typer.Argument(
        metavar="SETTINGS.yml", help="Settings in YAML: TRL's, verl's or TorchRL's."
    ),
    trainer: Trainer = "",
    as_json: r.Json = False,
    output: r.Output = None,
) -> None:
    """Name the objective that a policy trainer's settings ascend, and what to change."""
    from thetaone.estimators import policy

    r.show(policy.audit(settings, trainer=trainer), as_json=as_json, output=output)
