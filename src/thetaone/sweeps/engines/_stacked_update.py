"""The updates of SGD, Adam and AdamW on a stack of models, each with its own hyperparameters.

The update of these optimizers is elementwise, so a stack of k models is one matrix: a row a model,
a column a parameter. Hyperparameters are scalars when all agree, else they broadcast over it.

Shapes: k models, p parameters of one model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

Hyper = float | Tensor  # one for all, or [k, p]
Update = Callable[[Tensor, Tensor], None]  # (parameters [k, p], gradients [k, p]): in place

_PLAIN = {"amsgrad": False, "maximize": False, "nesterov": False, "dampening": 0}


class NotStackableError(Exception):
    """These models cannot be trained as one stack; the engine then trains them one by one."""


@dataclass(frozen=True)
class Hypers:
    """Kind of the optimizers of a stack, and each hyperparameter over the stack."""

    kind: type[torch.optim.Optimizer]
    values: Mapping[str, Hyper]


def read_hypers(models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Hypers:
    """Hyperparameters of every parameter of every model, gathered from the parameter groups.

    Raises:
        NotStackableError: Not all SGD, Adam or AdamW of the same kind, an option whose update is
            not implemented here, or a parameter that no group holds.
    """
    kind = type(optimizers[0])
    if kind not in _READERS or any(type(optimizer) is not kind for optimizer in optimizers):
        raise NotStackableError(f"{kind.__name__} has no stacked update")
    rows = [_rows(m, o) for m, o in zip(models, optimizers, strict=True)]
    counts = torch.tensor([p.numel() for p in models[0].parameters() if p.requires_grad])
    for group in (group for row in rows for group in row):
        for option, only in _PLAIN.items():
            if group.get(option, only) != only:
                raise NotStackableError(f"{kind.__name__}({option}=…) has no stacked update")
    read = {
        name: _over_stack([[float(get(group)) for group in row] for row in rows], counts)
        for name, get in _READERS[kind].items()
    }
    return Hypers(kind, read)


def make_update(hypers: Hypers, p_kp: Tensor) -> Update:
    """The update of a stack whose parameters look like ``p_kp``, state included.

    The formulas are those of ``torch.optim``; results agree to rounding.
    """
    if hypers.kind is torch.optim.SGD:
        return _sgd(hypers.values, torch.zeros_like(p_kp))
    decoupled = hypers.kind is torch.optim.AdamW
    return _adam(hypers.values, torch.zeros_like(p_kp), torch.zeros_like(p_kp), decoupled=decoupled)


def _sgd(h: Mapping[str, Hyper], momentum_kp: Tensor) -> Update:
    def update(p_kp: Tensor, g_kp: Tensor) -> None:
        if _used(h["weight_decay"]):
            g_kp = g_kp + h["weight_decay"] * p_kp
        if _used(h["momentum"]):  # from zero this is torch's first step too: the buffer is g
            g_kp = momentum_kp.mul_(h["momentum"]).add_(g_kp)
        p_kp.sub_(g_kp * h["lr"])

    return update


def _adam(h: Mapping[str, Hyper], m_kp: Tensor, v_kp: Tensor, *, decoupled: bool) -> Update:
    beta1, beta2, step = h["beta1"], h["beta2"], 0

    def update(p_kp: Tensor, g_kp: Tensor) -> None:
        nonlocal step
        step += 1
        if _used(h["weight_decay"]) and decoupled:
            p_kp.mul_(1 - h["lr"] * h["weight_decay"])
        elif _used(h["weight_decay"]):
            g_kp = g_kp + h["weight_decay"] * p_kp
        m_kp.lerp_(g_kp, 1 - beta1)
        if isinstance(beta2, Tensor):
            v_kp.mul_(beta2).add_(g_kp.square_().mul_(1 - beta2))
        else:
            v_kp.mul_(beta2).addcmul_(g_kp, g_kp, value=1 - beta2)
        # torch: lr/c1 · m / (√v/√c2 + ε); √c2 taken out of the fraction saves a pass over [k, p]
        root = (1 - beta2**step) ** 0.5
        ratio_kp = m_kp / v_kp.sqrt().add_(h["eps"] * root)
        rate = h["lr"] * root / (1 - beta1**step)
        if isinstance(rate, Tensor):
            p_kp.addcmul_(ratio_kp, rate, value=-1)
        else:
            p_kp.add_(ratio_kp, alpha=-rate)

    return update


_Reader = Callable[[dict[str, Any]], Any]
_SGD: dict[str, _Reader] = {name: itemgetter(name) for name in ("lr", "momentum", "weight_decay")}
_ADAM: dict[str, _Reader] = {
    **{name: itemgetter(name) for name in ("lr", "eps", "weight_decay")},
    "beta1": lambda group: group["betas"][0],
    "beta2": lambda group: group["betas"][1],
}
_READERS: dict[type[torch.optim.Optimizer], dict[str, _Reader]] = {
    torch.optim.SGD: _SGD,
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
}


def _rows(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The parameter group of each trained parameter, in the order of ``model.parameters()``."""
    home = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    trained = [p for p in model.parameters() if p.requires_grad]
    if any(id(p) not in home for p in trained):
        raise NotStackableError("a parameter is in no group of its optimizer")
    return [home[id(p)] for p in trained]


def _over_stack(values: list[list[float]], counts: Tensor) -> Hyper:
    """One number when all agree, else the number of each parameter of each model, [k, p]."""
    if len({value for row in values for value in row}) == 1:
        return values[0][0]
    if all(len(set(row)) == 1 for row in values):
        return torch.tensor([row[:1] for row in values])
    return torch.stack([torch.tensor(row).repeat_interleave(counts) for row in values])


def _used(hyper: Hyper) -> bool:
    return isinstance(hyper, Tensor) or hyper != 0
