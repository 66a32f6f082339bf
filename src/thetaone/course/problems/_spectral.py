"""Problem 5: the norm of the spectral condition, and the flattened one that it is not."""

import math

import numpy as np
import torch
from torch import Tensor

from thetaone.course._formula import Formula, Problem
from thetaone.laws import Law, rms
from thetaone.records import LawResult

LAW = Law("spectral-condition", "How much can W grow its input: what is max ‖Wh‖_RMS/‖h‖_RMS?")
TOLERANCE = 1e-3  # relative; an iterative norm is a good answer too


def matrices() -> dict[str, Tensor]:
    """Wide, tall, of signs, and semi-orthogonal: n_out × n_in each."""
    generator = torch.Generator().manual_seed(205)
    signs = torch.randn(24, 1, generator=generator) @ torch.randn(1, 96, generator=generator)
    rows = torch.linalg.qr(torch.randn(80, 20, generator=generator)).Q
    return {
        "Gaussian 16×64": torch.randn(16, 64, generator=generator),
        "Gaussian 64×16": torch.randn(64, 16, generator=generator),
        "sign(g hᵀ) 24×96": signs.sign(),
        "orthonormal columns 80×20": rows,
    }


def measure(formula: Formula) -> list[LawResult]:
    """The gain of W on the input that it grows most, found by a decomposition in float64."""
    return [
        LAW.exact(f"largest ‖Wh‖_RMS/‖h‖_RMS, {kind}", _answer(formula, w), largest_gain(w),
                  within=TOLERANCE)
        for kind, w in matrices().items()
    ]  # fmt: skip


def largest_gain(w: Tensor) -> float:
    """‖Wh‖_RMS/‖h‖_RMS at the first right singular vector h."""
    w64 = w.double()
    h = torch.from_numpy(np.linalg.svd(w64.numpy())[2][0])
    return float(rms(w64 @ h) / rms(h))


def _answer(formula: Formula, w: Tensor) -> float:
    return formula.number(w=w, n_out=w.shape[0], n_in=w.shape[1])


def _spectral(w: Tensor) -> float:
    return float(np.linalg.norm(w.double().numpy(), 2))


SPECTRAL_CONDITION = Problem(
    law=LAW,
    arguments={"w": "the matrix, n_out × n_in", "n_out": "rows [count]", "n_in": "columns [count]"},
    measure=measure,
    numbers=lambda formula: [_answer(formula, w) for w in matrices().values()],
    readings={
        "the RMS of the flattened matrix, which says nothing of alignment": lambda w: float(
            w.double().square().mean().sqrt()
        ),
        "the spectral norm, which compares sums of squares, not means": _spectral,
        "the factor upside down": lambda w, n_out, n_in: math.sqrt(n_out / n_in) * _spectral(w),
        "the Frobenius norm: every direction at once": lambda w: float(w.double().norm()),
    },
)
