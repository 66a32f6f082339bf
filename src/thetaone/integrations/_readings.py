"""What both trainers do with a monitor's readings: metrics for loggers, warnings of faults."""

import math
import warnings
from collections.abc import Iterable

from thetaone.parametrization import SpectralMonitor
from thetaone.records import SpectralReading


class LayerFaultWarning(UserWarning):
    """A layer died, or exploded, while a real training ran."""


def fresh_readings(monitor: SpectralMonitor, seen: int) -> list[SpectralReading]:
    """The readings after the first ``seen``; each dead or exploding layer among them is warned of.

    Args:
        monitor: Attached to the running training.
        seen: Readings already looked at [count].
    """
    fresh = monitor.readings[seen:]
    for reading in fresh:
        if reading.status != "ok":
            warnings.warn(
                f"{reading.layer} is {reading.status} at step {reading.step}: weight norm "
                f"{reading.weight_norm:.3g}, update norm {reading.update_norm:.3g}. Run "
                "t1.coordinate_check on the task, which names the likely cause",
                LayerFaultWarning,
                stacklevel=2,
            )
    return fresh


def as_metrics(readings: Iterable[SpectralReading]) -> dict[str, float]:
    """One number a layer and quantity, as loggers take them; what is not defined is left out.

    Examples:
        >>> reading = SpectralReading(
        ...     step=0, layer="up", weight_norm=2.0, update_norm=0.5, alignment=1.0
        ... )
        >>> as_metrics([reading])["spectral/up/update_norm"]
        0.5
    """
    return {
        f"spectral/{reading.layer}/{quantity}": getattr(reading, quantity)
        for reading in readings
        for quantity in ("weight_norm", "update_norm", "alignment")
        if not math.isnan(getattr(reading, quantity))
    }
