"""Law 1, measured: draws of W and x, ‖W x‖²_RMS of each."""

import torch
from torch import Tensor

from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _features as features
from thetaone.records import LawResult

LAW = Law("features-at-init", "Features at initialization have mean square d1, whatever d2 is")
D1 = 64
DRAWS = {2: 400_000, 16: 60_000, 64: 24_000}  # d2 -> draws: 0.16 % standard error each
CHUNK = 2_000_000  # numbers drawn at a time


def measure() -> list[LawResult]:
    """E‖Wx‖²_RMS for several d2, and for W scaled to keep features at 1."""
    generator = torch.Generator().manual_seed(101)
    results: list[LawResult] = []
    for d2, draws in DRAWS.items():
        squares = mean_square_features(D1, d2, draws, generator)
        quantity = f"E‖Wx‖²_RMS, d1={D1}, d2={d2}"
        results.append(LAW.statistical(quantity, features.mean_square_feature(D1), squares))
    scaled = mean_square_features(D1, 16, DRAWS[16], generator) * features.init_std(D1) ** 2
    results.append(LAW.statistical(f"the same with W/√d1, d1={D1}, d2=16", 1.0, scaled))
    return results


def mean_square_features(d1: int, d2: int, draws: int, generator: torch.Generator) -> Tensor:
    """‖Wx‖²_RMS of independent unit Gaussian W (d2 × d1) and x, shape [draws]."""
    squares: list[Tensor] = []
    for size in torch.arange(draws).split(max(1, CHUNK // (d1 * d2))):
        w_boi = torch.randn(len(size), d2, d1, generator=generator)
        x_bi = torch.randn(len(size), d1, generator=generator)
        squares.append((w_boi @ x_bi[:, :, None]).square().mean(dim=(1, 2)))
    return torch.cat(squares)
