"""Law 2, measured: draws of g and x, ‖sign(g xᵀ) x‖²_RMS of each, the matrix written out."""

import torch
from torch import Tensor

from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _sign_step as sign_step
from thetaone.records import LawResult

LAW = Law("sign-step", "One sign step moves features by about d1·√(2/π), whatever d2 is")
D1 = 64
DRAWS = 15_000  # relative standard deviation 0.19: 0.15 % standard error
WIDTHS_OUT = (1, 8, 64)
CHUNK = 2_000_000


def measure() -> list[LawResult]:
    """E‖sign(g xᵀ)x‖²_RMS for several d2, and with the rate that makes it 1."""
    generator = torch.Generator().manual_seed(102)
    predicted = sign_step.mean_square_update(D1)
    results = [
        LAW.statistical(
            f"E‖sign(gxᵀ)x‖²_RMS, d1={D1}, d2={d2}",
            predicted,
            mean_square_sign_steps(D1, d2, generator),
        )
        for d2 in WIDTHS_OUT
    ]
    for d1 in (16, D1, 256):
        draws = mean_square_sign_steps(d1, 4, generator) * sign_step.sign_step_rate(d1) ** 2
        results.append(LAW.statistical(f"the same at the rate for d1={d1}, d2=4", 1.0, draws))
    return results


def mean_square_sign_steps(d1: int, d2: int, generator: torch.Generator) -> Tensor:
    """‖sign(g xᵀ) x‖²_RMS of independent unit Gaussian g (d2) and x (d1), shape [draws]."""
    draws = DRAWS if d1 >= 64 else DRAWS * 64 // d1
    squares: list[Tensor] = []
    for size in torch.arange(draws).split(max(1, CHUNK // (d1 * d2))):
        g_bo1 = torch.randn(len(size), d2, 1, generator=generator)
        x_bi = torch.randn(len(size), d1, generator=generator)
        update_boi = torch.sign(g_bo1 * x_bi[:, None, :])
        squares.append((update_boi @ x_bi[:, :, None]).square().mean(dim=(1, 2)))
    return torch.cat(squares)
