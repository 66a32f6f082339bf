"""Law 5, measured: the induced norm and the RMS of the flattened matrix, apart on one matrix."""

import numpy as np
import torch
from torch import Tensor

from thetaone.laws._norms import rms, rms_operator_norm
from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _spectral as spectral
from thetaone.records import LawResult

LAW = Law("spectral-condition", "Features and updates are Θ(1) when induced norms are Θ(1)")
TOLERANCE = 1e-3  # stated relative error of the iterative norm
N_OUT, N_IN = 256, 512


def measure() -> list[LawResult]:
    """Induced norms of three kinds of matrix, and the alignment that turns bounds into sizes."""
    generator = torch.Generator().manual_seed(105)
    gaussian = torch.randn(N_OUT, N_IN, generator=generator)
    h, g = torch.randn(N_IN, generator=generator), torch.randn(N_OUT, generator=generator)
    signs = torch.sign(torch.outer(g, h))
    return [
        _dense(gaussian),
        _condition(gaussian),
        LAW.exact(
            f"‖sign(g hᵀ)‖_RMS→RMS, {N_OUT}×{N_IN}", spectral.sign_update_induced_norm(N_IN),
            _norm(signs), within=TOLERANCE, note="hence a rate ∝ 1/fan_in",
        ),
        LAW.exact(
            "RMS of the same matrix, flattened", spectral.flattened_rms_of_signs(),
            float(rms(signs.flatten())), note="not the induced norm",
        ),
        LAW.exact(
            "alignment of u hᵀ with h", spectral.aligned_update_alignment(),
            alignment(torch.outer(g, h), h), within=TOLERANCE, note="the upper bound is attained",
        ),
        LAW.bound(
            "alignment of a Gaussian matrix with h", "≤", 1.0, alignment(gaussian, h),
            note="submultiplicativity; about √n_out/(√n_in + √n_out)",
        ),
    ]  # fmt: skip


def alignment(w: Tensor, h: Tensor) -> float:
    """‖W h‖_RMS / (‖W‖_RMS→RMS ‖h‖_RMS), in [0, 1]."""
    return float(rms(w @ h)) / (_norm(w) * float(rms(h)))


def _norm(w: Tensor) -> float:
    return float(rms_operator_norm(w, TOLERANCE))


def _dense(w: Tensor) -> LawResult:
    """The iterative norm against the greatest gain that an independent decomposition finds."""
    truth = spectral.induced_from_spectral(float(np.linalg.norm(w.numpy(), 2)), *w.shape)
    quantity = f"‖W‖_RMS→RMS of a Gaussian {w.shape[0]}×{w.shape[1]}"
    return LAW.exact(quantity, truth, _norm(w), within=TOLERANCE, note="iterative, stated 0.1 %")


def _condition(w: Tensor) -> LawResult:
    """Semi-orthogonal rows times √(n_out/n_in): Condition 1 is an induced norm of 1."""
    rows = torch.linalg.qr(w.T).Q.T * spectral.condition_spectral_norm(*w.shape)
    quantity = f"induced norm at ‖W‖₂ = √(n_out/n_in), {w.shape[0]}×{w.shape[1]}"
    return LAW.exact(quantity, 1.0, _norm(rows), within=TOLERANCE, note="Condition 1")
