"""What further axes gave: the best rate of each combination of their values."""

from pydantic import Field

from thetaone.records._base import Record
from thetaone.records.laws import Optimum


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
