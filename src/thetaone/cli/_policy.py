"""``thetaone policy``: trains a policy and prints its learning curve."""

import typer

from thetaone.cli import _options as o
from thetaone.cli import _results as r


def policy(
    task: str = typer.Argument(
        help="cartpole (bundled, without a critic), any gymnasium id (Pendulum-v1), or a .py file "
        "with a function make_environment()."
    ),
    seed: o.Seed = 0,
    env_steps: int = typer.Option(300_000, help="Environment steps to spend."),
    width: o.Width = 64,
    lr: o.Lr = None,
    discount: float = typer.Option(0.97, help="Of advantages and values, with a critic."),
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
    plot: r.Plot = None,
) -> None:
    """Train a policy by policy gradient; print its learning curve."""
    from thetaone.cli._progress import Progress
    from thetaone.records import PolicyUpdate, ProgressEvent
    from thetaone.studies import ActorCriticSettings, train_actor_critic, train_policy

    width = 64 if width is None else width
    with Progress() as progress:

        def show(update: PolicyUpdate) -> None:
            progress(
                ProgressEvent(
                    phase="policy", n_done=update.env_steps, n_total=env_steps,
                    message=f"return {update.mean_return:.1f}",
                )
            )  # fmt: skip

        if task == "cartpole":
            rate = 0.01 if lr is None else lr
            run = train_policy(seed=seed, env_steps=env_steps, width=width, lr=rate, progress=show)
        else:
            rate = 1e-3 if lr is None else lr
            settings = ActorCriticSettings(width=width, lr=rate, discount=discount)
            run = train_actor_critic(
                task, seed=seed, env_steps=env_steps, settings=settings, progress=show
            )
    r.show(run, as_json=as_json, output=output)
    r.draw_page(run, report, quiet=as_json)
    r.draw_plot(run, plot)
