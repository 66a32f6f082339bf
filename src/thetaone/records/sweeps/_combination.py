"""The best rate of each combination of the values of further axes."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from thetaone.records._base import Record
from thetaone.records.laws import Optimum
from thetaone.records.sweeps._spec import AxisValues
from thetaone.records.sweeps._trial import Trial


class Combination(Record):
    """One combination of the values of further axes, at its own best rates.

    Attributes:
        values: Name of an axis -> its value; empty in a sweep without further axes.
        optima: Size -> best learning rate there; absent where none can be fitted.
        loss: Loss at the best rate of the size nearest to the base that has one; the lowest mean
            loss there without any, inf where every training diverged.
        log2_lr: That rate [octaves]; NaN where every training diverged or failed.
    """

    values: dict[str, float] = Field(default_factory=dict[str, float])
    optima: dict[int, Optimum] = Field(default_factory=dict[int, Optimum])
    loss: float
    log2_lr: float


def comparable(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials of rates that were trained to their end with as many seeds as any other.

    Of a grid these are all; a search tries some rates with one seed, or stops them early. Trials
    of one size and one combination of further axes are compared with each other.
    """
    ended = [trial for trial in trials if trial.status != "stopped" and not trial.spec.stop]
    seeds = Counter((_place(trial), trial.lr) for trial in ended)
    most: dict[Any, int] = {}
    for (place, _), count in seeds.items():
        most[place] = max(count, most.get(place, 0))
    return tuple(t for t in ended if seeds[_place(t), t.lr] == most[_place(t)])


def _place(trial: Trial) -> tuple[int, int | None, AxisValues]:
    return trial.width, trial.depth, trial.spec.axes
