"""Width and depth transfer: decides initialization and rates, applies them, checks them."""

from thetaone.parametrization.families import (
    GRADIENT,
    ORTHOGONAL,
    RELATIVE,
    SIGN,
    SIGN_DECOUPLED,
    UpdateFamily,
    register_update_family,
)
from thetaone.parametrization.monitor import SpectralMonitor
from thetaone.parametrization.schedules import FlattenedRatiosWarning, per_group

__all__ = [
    "GRADIENT",
    "ORTHOGONAL",
    "RELATIVE",
    "SIGN",
    "SIGN_DECOUPLED",
    "FlattenedRatiosWarning",
    "SpectralMonitor",
    "UpdateFamily",
    "per_group",
    "register_update_family",
]
