"""Problem 2: how far one sign step moves the features, and why d2 cancels."""

import math

import torch

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law
from thetaone.laws.measurements import mean_square_sign_steps
from thetaone.records import LawResult

LAW = Law("sign-step", "y' = sign(g xᵀ)x, g and x unit Gaussian: what is E‖y'‖²_RMS?")
CASES = ((16, 1), (16, 16), (64, 4), (64, 32))  # d1, d2


def measure(formula: Formula) -> list[LawResult]:
    """Draws of g and x at each size, the matrix of signs written out."""
    generator = torch.Generator().manual_seed(202)
    return [
        LAW.statistical(
            f"E‖sign(gxᵀ)x‖²_RMS, d1={d1}, d2={d2}",
            formula.number(d1=d1, d2=d2),
            mean_square_sign_steps(d1, d2, generator),
        )
        for d1, d2 in CASES
    ]


SIGN_STEP = Problem(
    law=LAW,
    arguments={"d1": "fan-in [count]", "d2": "fan-out [count]"},
    measure=measure,
    numbers=lambda formula: [formula.number(d1=d1, d2=d2) for d1, d2 in CASES],
    readings={
        "signs independent of x: they align with it, and the terms |xⱼ| add": lambda d1: d1,
        "|xⱼ| taken as 1: E‖x‖₁ is d1·√(2/π)": lambda d1: d1**2,
        "the square of the mean: ‖x‖₁ has a variance too": lambda d1: d1**2 * 2 / math.pi,
        "the sum over the d2 outputs, not their mean": lambda d1, d2: (
            d2 * (d1 * (1 - 2 / math.pi) + d1**2 * 2 / math.pi)
        ),
        "d1 terms of variance 1 beside their squared mean: it is 1 − 2/π": lambda d1: (
            d1 + d1**2 * 2 / math.pi
        ),
    },
)
