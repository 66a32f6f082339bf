"""Warnings that name the user's line, from however deep in this library or torch they come."""

import sys
import warnings

from thetaone.errors import EstimatorWarning

_INSIDE = ("thetaone", "torch")


def warn_user(message: str) -> None:
    """Warn at the first frame that is neither this library's nor torch's."""
    frame, levels = sys._getframe(1), 2
    # code that was compiled from text may have globals without a name
    while (
        frame.f_back is not None
        and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _INSIDE
    ):
        frame, levels = frame.f_back, levels + 1
    warnings.warn(message, EstimatorWarning, stacklevel=levels)
