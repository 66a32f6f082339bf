"""``thetaone audit``: which objective a trainer's settings ascend."""

from pathlib import Path

import typer


def audit(
    config: Path = typer.Argument(help="Settings in YAML: TRL's, verl's or TorchRL's."),
    trainer: str = typer.Option("", help="grpo, rloo, verl or torchrl; told by the names if left."),
    as_json: bool = typer.Option(False, "--json", help="Print the record as JSON."),
) -> None:
    """Name the objective that a policy trainer's settings ascend, and what to change."""
    from thetaone.estimators import policy

    found = policy.audit(config, trainer=trainer)
    print(found.to_json() if as_json else found)
