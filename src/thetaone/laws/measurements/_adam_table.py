"""Law 4, measured: how far one Adam step moves hidden features, narrow against wide."""

import math

import torch
from torch import Tensor

from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _transfer as transfer
from thetaone.records import LawResult

LAW = Law("adam-table", "Adam's rate for hidden weights: 1/fan_in in µP, constant in SP")
NARROW, WIDE = 32, 128
RATIO = WIDE / NARROW
UNITS = 130_000  # hidden units over all networks of a width: 0.13 % standard error
INPUTS, RATE, CHUNK = 16, 2.0**-7, 2_000_000


def measure() -> list[LawResult]:
    """Growth of ‖ΔW h‖_RMS from narrow to wide under each rule."""
    generator = torch.Generator().manual_seed(104)
    narrow = adam_update_sizes(NARROW, RATE, generator)
    in_mup = adam_update_sizes(
        WIDE, RATE * transfer.hidden_adam_rate_factor(RATIO, "µP"), generator
    )
    in_sp = adam_update_sizes(WIDE, RATE * transfer.hidden_adam_rate_factor(RATIO, "SP"), generator)
    step = f"‖ΔW h‖_RMS at width {WIDE} over {NARROW}, hidden rate"
    growth = transfer.feature_update_growth(1.0, RATIO)
    return [
        LAW.estimate(f"{step} ∝ 1/fan_in (µP)", 1.0, *ratio_of_means(in_mup, narrow)),
        LAW.estimate(f"{step} constant (SP)", growth, *ratio_of_means(in_sp, narrow)),
    ]


def adam_update_sizes(width: int, rate: float, generator: torch.Generator) -> Tensor:
    """‖ΔW h‖_RMS of one step of ``torch.optim.Adam`` in independent three-layer networks.

    Networks of one width are stacked: ``h = tanh(V ξ)``, ``y = a · tanh(W h)``, one input ξ each,
    Gaussian weights of variance 1/fan_in (4/fan_in in V, so that tanh bends).
    """
    networks = UNITS // width
    sizes: list[Tensor] = []
    for size in torch.arange(networks).split(max(1, CHUNK // width**2)):
        xi_bd1 = torch.randn(len(size), INPUTS, 1, generator=generator)
        xi_bd1 = xi_bd1 * INPUTS**0.5 / xi_bd1.norm(dim=1, keepdim=True)
        v_bnd = torch.randn(len(size), width, INPUTS, generator=generator) * 2 / INPUTS**0.5
        w_bnn = torch.randn(len(size), width, width, generator=generator) / width**0.5
        a_bn1 = torch.randn(len(size), width, 1, generator=generator) / width**0.5
        before = w_bnn.clone()
        w_bnn.requires_grad_()
        optimizer = torch.optim.Adam([w_bnn], lr=rate, eps=1e-30)
        h_bn1 = torch.tanh(v_bnd @ xi_bd1)
        (a_bn1 * torch.tanh(w_bnn @ h_bn1)).sum().backward()
        optimizer.step()
        moved = (w_bnn.detach() - before) @ h_bn1
        sizes.append(moved.square().mean(dim=(1, 2)).sqrt())
    return torch.cat(sizes)


def ratio_of_means(top: Tensor, bottom: Tensor) -> tuple[float, float]:
    """Ratio of two independent means, and its standard error to first order."""
    relative = math.sqrt(
        sum(float(x.var()) / x.numel() / float(x.mean()) ** 2 for x in (top, bottom))
    )
    ratio = float(top.mean() / bottom.mean())
    return ratio, ratio * relative
