"""``thetaone policy``: trains a policy and prints its learning curve."""

from pathlib import Path

import typer


def policy(
    task: str = typer.Argument(
        help="cartpole (bundled, without a critic), or any gymnasium id: Pendulum-v1."
    ),
    seed: int = typer.Option(0, help="Of initialization, start states and actions."),
    steps: int = typer.Option(300_000, help="Environment steps to spend."),
    width: int = typer.Option(64, help="Of the policy's hidden layers."),
    lr: float | None = typer.Option(None, help="Adam's rate; 0.01 for cartpole, else 0.001."),
    discount: float = typer.Option(0.97, help="Of advantages and values, with a critic."),
    output: Path | None = typer.Option(None, help="Also write the record as JSON here."),
    as_json: bool = typer.Option(False, "--json", help="Print the record as JSON."),
    plot: Path | None = typer.Option(None, help="Draw the learning curve into this file."),
) -> None:
    """Train a policy by policy gradient; print its learning curve."""
    from thetaone.cli._progress import Progress
    from thetaone.errors import InputError
    from thetaone.records import PolicyUpdate, ProgressEvent
    from thetaone.studies import ActorCriticSettings, train_actor_critic, train_policy

    for path in (output, plot):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist; create it first")
    with Progress() as progress:

        def show(update: PolicyUpdate) -> None:
            progress(
                ProgressEvent(
                    phase="policy", n_done=update.env_steps, n_total=steps,
                    message=f"return {update.mean_return:.1f}",
                )
            )  # fmt: skip

        if task == "cartpole":
            rate = 0.01 if lr is None else lr
            run = train_policy(seed=seed, env_steps=steps, width=width, lr=rate, progress=show)
        else:
            rate = 1e-3 if lr is None else lr
            settings = ActorCriticSettings(width=width, lr=rate, discount=discount)
            run = train_actor_critic(
                task, seed=seed, env_steps=steps, settings=settings, progress=show
            )
    print(run.to_json() if as_json else run)
    if output is not None:
        run.to_json(output)
    if plot is not None:
        run.plot().savefig(plot)
