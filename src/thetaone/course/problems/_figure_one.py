"""Problem 3: the rule under which the best learning rate stays where it is."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law, fit_vertex
from thetaone.laws.measurements import LOG2_RATES, rate_losses
from thetaone.records import LawResult

LAW = Law(
    "figure-1",
    "By which factor on Adam's rate of hidden and output weights does the best rate stay put?",
)
NARROW, WIDE = 64, 256
RATIO = WIDE / NARROW
BAND = 0.5  # octaves over two doublings


def measure(formula: Formula) -> list[LawResult]:
    """Loss against rate at both widths, initial values of µP, rates of the formula."""
    factor = formula.number(width_ratio=RATIO)
    start = fit_vertex(LOG2_RATES, _narrow())
    end = fit_vertex(LOG2_RATES, rate_losses(WIDE, "µP", rate_factor=factor))
    moved = end.log2_lr - start.log2_lr
    return [
        LAW.bound(
            f"octaves that the best rate moves, width {NARROW} to {WIDE}, factor {factor:.4g}",
            "≤", BAND, abs(moved), stderr=math.hypot(start.stderr, end.stderr),
            note=f"log2 of the best rate: {start.log2_lr:.2f} to {end.log2_lr:.2f}",
        ),
    ]  # fmt: skip


@cache
def _narrow() -> NDArray[np.float64]:
    return rate_losses(NARROW, "SP")  # the base: every rule is the same there


FIGURE_ONE = Problem(
    law=LAW,
    arguments={"width_ratio": f"wide over narrow width, here {RATIO:g}"},
    measure=measure,
    numbers=lambda formula: [formula.number(width_ratio=RATIO)],
    readings={
        "no factor: the standard parametrization, where the best rate moves left": lambda: 1.0,
        "the factor of the initial values, not of the rate": lambda width_ratio: width_ratio**-0.5,
        "a faster rate for a wider layer": lambda width_ratio: width_ratio,
        "the factor twice, for the layer before as well": lambda width_ratio: width_ratio**-2,
    },
)
