"""A policy's learning curve: return against environment steps."""

from thetaone.records import LAST_EPISODES, PolicyRun
from thetaone.report.drawing import Figure, Panel, Series, linear_axis


def policy_figure(run: PolicyRun) -> Figure:
    """Mean return of each update's episodes.

    Args:
        run: The training.

    Returns:
        The figure.
    """
    steps = tuple(float(update.env_steps) for update in run.updates)
    means = tuple(update.mean_return for update in run.updates)
    curve = Series(
        name="mean return of an update's episodes", x=steps, y=means, colour="mup",
        symbol="circle", width=1.8,
    )  # fmt: skip
    panel = Panel(
        title="",
        x=linear_axis("environment steps", [0.0, *steps], quantity="count", pad=0.02),
        y=linear_axis("mean return", [0.0, *means]),
        series=(curve,),
        height=330,
    )
    alt = (
        f"Mean return from {means[0]:.1f} to {means[-1]:.1f}; the last {LAST_EPISODES} episodes "
        f"{run.last_mean():.1f}."
    )
    title = f"{run.environment}: return while learning"
    return Figure(key="policy", title=title, alt=alt, panels=(panel,))
