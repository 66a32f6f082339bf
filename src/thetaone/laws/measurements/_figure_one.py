"""Law 3, measured: loss against learning rate at two widths, µP beside SP, on a small teacher.

Shape suffixes: m models (seed × rate), b batch, i inputs, n width, o outputs.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thetaone.laws._verdict import Law
from thetaone.laws._vertex import fit_vertex
from thetaone.laws.formulas import _transfer as transfer
from thetaone.records import LawResult, Optimum

LAW = Law("figure-1", "The best rate stays in µP and moves left in SP as width grows")
NARROW, WIDE = 64, 256
INPUTS, OUTPUTS, BATCH, STEPS, LAST, SEEDS = 16, 4, 64, 30, 10, 3
LOG2_RATES = tuple(float(x) for x in range(-11, -1))
MUP_BAND, SP_SHIFT = 0.5, -1.0  # octaves over two doublings

Array = NDArray[np.float64]


def measure() -> list[LawResult]:
    """Drift of the optimum in both schemes, and what it does to the loss."""
    narrow = rate_losses(NARROW, "SP")  # at the base width the schemes are one and the same
    wide: dict[transfer.Scheme, Array] = {
        "µP": rate_losses(WIDE, "µP"),
        "SP": rate_losses(WIDE, "SP"),
    }
    start = fit_vertex(LOG2_RATES, narrow)
    ends = {scheme: fit_vertex(LOG2_RATES, wide[scheme]) for scheme in wide}
    span = f"width {NARROW} to {WIDE}"
    transferred = int(np.argmin(np.abs(np.array(LOG2_RATES) - start.log2_lr)))
    mup, sp = (float(wide[scheme].mean(axis=0)[transferred]) for scheme in ("µP", "SP"))
    return [
        LAW.bound(
            f"|drift| of the best log2 rate, µP, {span}", "≤", MUP_BAND,
            abs(ends["µP"].log2_lr - start.log2_lr), stderr=_stderr(ends["µP"], start),
            note=f"{start.log2_lr:.2f} to {ends['µP'].log2_lr:.2f} octaves",
        ),
        LAW.bound(
            f"drift of the best log2 rate, SP, {span}", "≤", SP_SHIFT,
            ends["SP"].log2_lr - start.log2_lr, stderr=_stderr(ends["SP"], start),
            note=f"{start.log2_lr:.2f} to {ends['SP'].log2_lr:.2f} octaves",
        ),
        LAW.bound(
            "best loss, µP, wide over narrow", "≤", 1.0, ends["µP"].loss / start.loss,
            note="wider is better",
        ),
        LAW.bound(
            "wide at the narrow's rate, SP over µP", "≥", 1.0, sp / mup,
            note=f"losses {sp:.3g} and {mup:.3g} at 2^{LOG2_RATES[transferred]:g}",
        ),
    ]  # fmt: skip


def rate_losses(width: int, scheme: transfer.Scheme, *, rate_factor: float | None = None) -> Array:
    """Mean training loss of the last steps, shape [seeds, rates]; models train side by side.

    Args:
        width: Features of both hidden layers [count].
        scheme: Initial values, and unless ``rate_factor`` is given the rates, of this scheme.
        rate_factor: Factor on the rate of hidden and output weights in place of the scheme's.
    """
    models = SEEDS * len(LOG2_RATES)
    rates_m11 = torch.tensor(LOG2_RATES).exp2().repeat(SEEDS).view(models, 1, 1)
    weights, factors = zip(*_weights(width, scheme, rate_factor), strict=True)
    parameters = [w.repeat_interleave(len(LOG2_RATES), dim=0).requires_grad_() for w in weights]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    history: list[Tensor] = []
    for step, (x_bi, y_bo) in enumerate(_batches(), start=1):
        loss_m = _loss(parameters, x_bi.repeat_interleave(len(LOG2_RATES), dim=0),
                       y_bo.repeat_interleave(len(LOG2_RATES), dim=0))  # fmt: skip
        gradients = torch.autograd.grad(loss_m.sum(), parameters)
        for p, g, factor, (first, second) in zip(
            parameters, gradients, factors, moments, strict=True
        ):
            _adam(p.data, g, first, second, step=step, rate=rates_m11 * factor)
        history.append(loss_m.detach())
    return torch.stack(history[-LAST:]).mean(dim=0).view(SEEDS, -1).double().numpy()


def _weights(
    width: int, scheme: transfer.Scheme, rate_factor: float | None = None
) -> list[tuple[Tensor, float]]:
    """Initial weights (one set a seed) with the factor on the rate of each, Table 3 written out."""
    generator = torch.Generator().manual_seed(1030 + width)
    ratio = width / NARROW
    factor = rate_factor
    if factor is None:
        factor = transfer.hidden_adam_rate_factor(ratio, scheme)
    readout = 1 / math.sqrt(ratio) if scheme == "µP" else 1.0
    shapes = [
        (width, INPUTS, 1.0, 1.0),
        (width, width, 1.0, factor),
        (OUTPUTS, width, readout, factor),
    ]
    return [
        (torch.randn(SEEDS, n_out, n_in, generator=generator) * scale / math.sqrt(n_in), rate)
        for n_out, n_in, scale, rate in shapes
    ]


def _batches() -> list[tuple[Tensor, Tensor]]:
    """The same inputs and targets (seed × batch) for every width and scheme; a fixed teacher."""
    generator = torch.Generator().manual_seed(103)
    u_ih = torch.randn(INPUTS, 32, generator=generator) / INPUTS**0.5
    v_ho = torch.randn(32, OUTPUTS, generator=generator) / 32**0.5
    x = torch.randn(STEPS, SEEDS, BATCH, INPUTS, generator=generator)
    y = 1.5 * torch.tanh(x @ u_ih) @ v_ho
    return list(zip(x.unbind(), y.unbind(), strict=True))


def _loss(parameters: list[Tensor], x_mbi: Tensor, y_mbo: Tensor) -> Tensor:
    v, w, a = parameters
    # the 2 gives back what the two ReLUs take from the mean square: √2 each
    h = torch.relu(torch.relu(x_mbi @ v.mT) @ w.mT)
    return (2 * h @ a.mT - y_mbo).square().mean(dim=(1, 2))


def _adam(p: Tensor, g: Tensor, first: Tensor, second: Tensor, *, step: int, rate: Tensor) -> None:
    """Adam with its usual constants, written out so that each stacked model has its own rate."""
    first.lerp_(g, 0.1)
    second.lerp_(g.square(), 0.001)
    denominator = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
    p.sub_(rate / (1 - 0.9**step) * first / denominator)


def _stderr(end: Optimum, start: Optimum) -> float:
    return math.hypot(end.stderr, start.stderr)
