"""Problem 4: Adam's row of Table 3."""

import torch

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law
from thetaone.laws.measurements import adam_update_sizes, ratio_of_means
from thetaone.records import LawResult

LAW = Law(
    "adam-table",
    "By which factor on Adam's rate for hidden weights do features move as far in a wide network?",
)
NARROW, WIDTHS, RATE = 32, (64, 128), 2.0**-7


def measure(formula: Formula) -> list[LawResult]:
    """‖ΔW h‖_RMS of one step at each width over that of the narrow one, at the formula's rates."""
    generator = torch.Generator().manual_seed(204)
    narrow = adam_update_sizes(NARROW, RATE, generator)
    rows: list[LawResult] = []
    for width in WIDTHS:
        factor = formula.number(width_ratio=width / NARROW)
        wide = adam_update_sizes(width, RATE * factor, generator)
        quantity = f"‖ΔW h‖_RMS at width {width} over {NARROW}, factor {factor:.4g}"
        rows.append(LAW.estimate(quantity, 1.0, *ratio_of_means(wide, narrow)))
    return rows


ADAM_TABLE = Problem(
    law=LAW,
    arguments={"width_ratio": "wide over narrow fan-in"},
    measure=measure,
    numbers=lambda formula: [formula.number(width_ratio=width / NARROW) for width in WIDTHS],
    readings={
        "the standard parametrization: fan_in terms of one sign add up": lambda: 1.0,
        "terms that add like random signs; they align": lambda width_ratio: width_ratio**-0.5,
        "SGD's row: its gradient shrinks with width, Adam's step does not": lambda width_ratio: (
            width_ratio
        ),
        "the gradient's shrinking as well, which Adam divides away": lambda width_ratio: (
            width_ratio**-2
        ),
    },
)
