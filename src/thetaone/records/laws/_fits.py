"""Results of fits: a power law, and the vertex of a loss curve."""

from thetaone.records._base import Record
from thetaone.records._words import counted, interval_words


class PowerLaw(Record):
    """``value ≈ prefactor · size ** exponent``, fitted in log-log.

    Attributes:
        exponent: Slope of log value against log size [dimensionless].
        stderr: Standard error of the exponent.
        interval: Two-sided interval of the exponent at ``confidence``.
        prefactor: Fitted value at size 1 [unit of the values].
        confidence: Coverage of ``interval``, in (0, 1).
        n_points: Points fitted [count].

    Examples:
        >>> import thetaone as t1
        >>> law = t1.fit_exponent([64, 128, 256], [1.0, 2.0, 4.0])
        >>> round(law.exponent, 6), law.n_points
        (1.0, 3)
    """

    exponent: float
    stderr: float
    interval: tuple[float, float]
    prefactor: float
    confidence: float = 0.95
    n_points: int

    def __str__(self) -> str:
        return (
            f"{self.prefactor:.4g} · size^{self.exponent:.4g}; exponent ± {self.stderr:.2g}, "
            f"{self.confidence:.0%} interval {interval_words(*self.interval, '.4g')}, "
            f"{counted(self.n_points, 'point')}"
        )


class Optimum(Record):
    """The vertex of loss against log2 learning rate.

    Attributes:
        log2_lr: Position of the vertex [octaves].
        stderr: Standard error of the position over seeds [octaves]; NaN with one seed.
        interval: Two-sided interval of the position at ``confidence`` [octaves].
        loss: Fitted loss at the vertex.
        confidence: Coverage of ``interval``, in (0, 1).
        at_edge: The lowest loss sits on the edge of the grid, so the optimum is only bounded.
        flat: No rate stands out from its neighbours: which is best cannot be told.
    """

    log2_lr: float
    stderr: float
    interval: tuple[float, float]
    loss: float
    confidence: float = 0.95
    at_edge: bool = False
    flat: bool = False
