"""How a policy learned: the return of every episode, against environment steps."""

import math
from typing import ClassVar, Self

from pydantic import model_validator

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_seconds

LAST_EPISODES = 80
_BLOCKS = "▁▂▃▄▅▆▇█"


class PolicyUpdate(Record):
    """One step of descent: the episodes it learned from.

    Attributes:
        env_steps: Environment steps paid for so far, this update's included [count].
        returns: Return of each episode [reward].
    """

    env_steps: int
    returns: tuple[float, ...]

    @property
    def mean_return(self) -> float:
        """Mean over the update's episodes [reward]."""
        return math.fsum(self.returns) / len(self.returns)


class PolicyRun(Record):
    """One training of a policy.

    Attributes:
        task: Name of the task.
        environment: Name of the environment.
        width: Width of the policy.
        lr: Learning rate.
        seed: Seed of initialization, environments and actions.
        budget_steps: Environment steps allowed [count].
        updates: One a step of descent, in order; at least one.
        wall_seconds: Time of the training [s].
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:plot_policy"

    task: str
    environment: str
    width: int
    lr: float
    seed: int
    budget_steps: int
    updates: tuple[PolicyUpdate, ...]
    wall_seconds: float

    @model_validator(mode="after")
    def _some_updates(self) -> Self:
        if not self.updates:
            raise ValueError("a training without updates says nothing")
        return self

    @property
    def returns(self) -> tuple[float, ...]:
        """Return of every episode, in order [reward]."""
        return tuple(value for update in self.updates for value in update.returns)

    @property
    def env_steps(self) -> int:
        """Environment steps paid for [count]."""
        return self.updates[-1].env_steps

    def last_mean(self, episodes: int = LAST_EPISODES) -> float:
        """Mean return of the last episodes of the training [reward]."""
        tail = self.returns[-episodes:]
        return math.fsum(tail) / len(tail)

    def __str__(self) -> str:
        title = (
            f"{self.task}: {self.environment}, width {self.width}, lr {self.lr:.3g}, "
            f"seed {self.seed}"
        )
        chosen = _spread(len(self.updates), 10)
        rows = [
            [str(i + 1), f"{self.updates[i].env_steps:,}", f"{self.updates[i].mean_return:.1f}"]
            for i in chosen
        ]
        lines = [
            text_table(["update", "environment steps", "mean return"], rows, title=title),
            sparkline([update.mean_return for update in self.updates]),
            f"mean return of the last {min(LAST_EPISODES, len(self.returns))} episodes "
            f"{self.last_mean():.1f} after {self.env_steps:,} environment steps, "
            f"{format_seconds(self.wall_seconds)}",
        ]
        return "\n".join(lines)


def sparkline(values: list[float]) -> str:
    """The values as a row of blocks from their least to their greatest.

    Examples:
        >>> sparkline([0.0, 5.0, 10.0])
        '▁▄█'
    """
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[int((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` indices, first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
