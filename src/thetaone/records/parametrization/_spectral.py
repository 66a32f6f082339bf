"""What a live monitor read of one layer at one step."""

from thetaone.records._base import Record


class SpectralReading(Record):
    """Norms of one layer during a real training.

    Attributes:
        step: Optimizer steps taken [count].
        layer: Qualified name of the weight's module.
        weight_norm: ‖W‖_RMS→RMS before the step.
        update_norm: ‖ΔW‖_RMS→RMS of the step.
        alignment: ‖ΔW h‖_RMS / (‖ΔW‖ ‖h‖_RMS), in [0, 1]; NaN where it is not defined.
        status: ``ok``, ``dead`` (no update) or ``exploding`` (not finite, or grown too much).
    """

    step: int
    layer: str
    weight_norm: float
    update_norm: float
    alignment: float
    status: str = "ok"
