"""Problem 1: the size of the features y = W x at initialization."""

import math

import torch

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law
from thetaone.laws.measurements import mean_square_features
from thetaone.records import LawResult

LAW = Law("features-at-init", "y = Wx, W and x unit Gaussian: what is E‖y‖²_RMS?")
CASES = {(16, 2): 400_000, (16, 8): 120_000, (32, 8): 100_000}  # (d1, d2) -> draws: 0.2 %


def measure(formula: Formula) -> list[LawResult]:
    """Draws of W and x at each size."""
    generator = torch.Generator().manual_seed(201)
    return [
        LAW.statistical(
            f"E‖Wx‖²_RMS, d1={d1}, d2={d2}",
            formula.number(d1=d1, d2=d2),
            mean_square_features(d1, d2, draws, generator),
        )
        for (d1, d2), draws in CASES.items()
    ]


FEATURES = Problem(
    law=LAW,
    arguments={"d1": "fan-in [count]", "d2": "fan-out [count]"},
    measure=measure,
    numbers=lambda formula: [formula.number(d1=d1, d2=d2) for d1, d2 in CASES],
    readings={
        "the sum over the d2 outputs, not their mean": lambda d1, d2: d1 * d2,
        "the norm, not its square": lambda d1: math.sqrt(d1),
        "the number of outputs in place of that of inputs": lambda d2: d2,
        "one product of the sum: each output adds up d1 of them": lambda: 1.0,
    },
)
