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
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

Hyper = float | Tensor  # one for all; else float64, [k, 1] or a column a parameter tensor, [k, t]
# (parameters [k, p], gradients [k, p], factor on the rates): in place
Update = Callable[[Tensor, Tensor, float], None]

LONG_ROW = 4096  # entries from which a call a model costs less than two passes over the stack

_PLAIN = {"amsgrad": False, "maximize": False, "nesterov": False, "dampening": 0}
_NEUTRAL = {  # options that change how an update is computed, not what it is; and names
    "params", "param_names", "name", "initial_lr", "lr_factor", "foreach", "fused", "capturable",
    "differentiable", "decoupled_weight_decay",
}  # fmt: skip
_FOLLOWED = {"lr", "momentum", "weight_decay", "eps", "betas"}


class NotStackableError(Exception):
    """These models cannot be trained as one stack; the engine then trains them one by one."""


@dataclass(frozen=True)
class Hypers:
    """Kind of the optimizers of a stack, and each hyperparameter over the stack.

    Attributes:
        kind: The optimizers' class.
        values: Each hyperparameter.
        decoupled: Whether Adam's weight decay acts on the parameter, not on the gradient.
        counts: Entries of each parameter tensor, [t].
    """

    kind: type[torch.optim.Optimizer]
    values: Mapping[str, Hyper]
    decoupled: bool
    counts: Tensor

    def over(self, hyper: Hyper, p_kp: Tensor) -> Hyper:
        """A scalar as the stack's matrix takes it: rounded once, as torch rounds its scalars."""
        if not isinstance(hyper, Tensor):
            return hyper
        rounded = hyper.to(p_kp.dtype)
        if rounded.shape[1] == 1:
            return rounded
        return rounded.repeat_interleave(self.counts, dim=1, output_size=p_kp.shape[1])


def read_hypers(models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Hypers:
    """Hyperparameters of every parameter of every model, gathered from the parameter groups.

    Raises:
        NotStackableError: Not all SGD, Adam or AdamW of the same kind, an option whose update is
            not implemented here, a parameter that no group holds, or something that hangs on the
            optimizer, the modules or the parameters and acts in a step.
    """
    kind = type(optimizers[0])
    if kind not in _READERS or any(type(optimizer) is not kind for optimizer in optimizers):
        raise NotStackableError(f"{kind.__name__} has no stacked update")
    for model, optimizer in zip(models, optimizers, strict=True):
        _require_untouched(model, optimizer)
    rows = [_rows(m, o) for m, o in zip(models, optimizers, strict=True)]
    counts = torch.tensor([p.numel() for p in models[0].parameters() if p.requires_grad])
    for group in (group for row in rows for group in row):
        for option, only in _PLAIN.items():
            if group.get(option, only) != only:
                raise NotStackableError(f"{kind.__name__}({option}=…) has no stacked update")
        for option in group.keys() - _PLAIN.keys() - _NEUTRAL - _FOLLOWED:
            raise NotStackableError(f"a parameter group has an option {option!r} of its own")
    decoupled = {
        group.get("decoupled_weight_decay", kind is torch.optim.AdamW)
        for row in rows
        for group in row
    }
    if len(decoupled) > 1:
        raise NotStackableError("weight decay is decoupled in some parameter groups only")
    read = {
        name: _over_stack([[float(get(group)) for group in row] for row in rows])
        for name, get in _READERS[kind].items()
    }
    return Hypers(kind, read, decoupled.pop(), counts)


def make_update(hypers: Hypers, p_kp: Tensor) -> Update:
    """The update of a stack whose parameters look like ``p_kp``, state included.

    Formulas, order of operations and precision of the scalars are those of ``torch.optim``: equal
    gradients give equal parameters to the bit, but for the last place where torch multiplies and
    adds in one rounding (SGD's step) and a stack of short rows in two.
    """
    if hypers.kind is torch.optim.SGD:
        return _sgd(hypers, torch.zeros_like(p_kp))
    return _adam(hypers, torch.zeros_like(p_kp), torch.zeros_like(p_kp))


def _sgd(hypers: Hypers, momentum_kp: Tensor) -> Update:
    h, over = hypers.values, hypers.over

    def update(p_kp: Tensor, g_kp: Tensor, factor: float) -> None:
        if _used(h["weight_decay"]):
            g_kp = _add_scaled(g_kp.clone(), p_kp, h["weight_decay"], over)
        if _used(h["momentum"]):  # from zero this is torch's first step too: the buffer is g
            g_kp = momentum_kp.mul_(over(h["momentum"], p_kp)).add_(g_kp)
        _add_scaled(p_kp, g_kp, -(h["lr"] * factor), over)

    return update


def _adam(hypers: Hypers, m_kp: Tensor, v_kp: Tensor) -> Update:
    h, over = hypers.values, hypers.over
    beta1, beta2, step = h["beta1"], h["beta2"], 0

    def update(p_kp: Tensor, g_kp: Tensor, factor: float) -> None:
        nonlocal step
        step += 1
        lr = h["lr"] * factor
        if _used(h["weight_decay"]) and hypers.decoupled:
            p_kp.mul_(over(1 - lr * h["weight_decay"], p_kp))
        elif _used(h["weight_decay"]):
            g_kp = _add_scaled(g_kp.clone(), p_kp, h["weight_decay"], over)
        m_kp.lerp_(g_kp, over(1 - beta1, p_kp))
        keep, new = over(beta2, p_kp), over(1 - beta2, p_kp)
        if isinstance(new, Tensor):
            v_kp.mul_(keep).add_(g_kp * new * g_kp)
        else:
            v_kp.mul_(keep).addcmul_(g_kp, g_kp, value=new)
        root, rate = over((1 - beta2**step) ** 0.5, p_kp), -(lr / (1 - beta1**step))
        _add_ratio(p_kp, m_kp, v_kp.sqrt().div_(root).add_(over(h["eps"], p_kp)), rate, over)

    return update


_Over = Callable[[Hyper, Tensor], Hyper]


def _add_scaled(p_kp: Tensor, g_kp: Tensor, scale: Hyper, over: _Over) -> Tensor:
    """``p += scale · g`` by ``add_``, which rounds once and takes one scale a call."""
    if not isinstance(scale, Tensor):
        return p_kp.add_(g_kp, alpha=scale)
    if scale.shape[1] > 1 or p_kp.shape[1] < LONG_ROW:
        return p_kp.add_(g_kp * over(scale, p_kp))
    for p, g, one in zip(p_kp, g_kp, scale[:, 0].tolist(), strict=True):
        p.add_(g, alpha=one)
    return p_kp


def _add_ratio(
    p_kp: Tensor, m_kp: Tensor, denominator_kp: Tensor, rate: Hyper, over: _Over
) -> None:
    """``p += rate · m / denominator`` in the order of ``addcdiv``, which takes one rate a call."""
    if not isinstance(rate, Tensor):
        p_kp.addcdiv_(m_kp, denominator_kp, value=rate)
    elif rate.shape[1] == 1 and p_kp.shape[1] >= LONG_ROW:
        rows = zip(p_kp, m_kp, denominator_kp, rate[:, 0].tolist(), strict=True)
        for p, m, denominator, one in rows:
            p.addcdiv_(m, denominator, value=one)
    else:
        p_kp.add_((m_kp * over(rate, p_kp)).div_(denominator_kp))


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
    if home.keys() - {id(p) for p in model.parameters()}:
        raise NotStackableError("the optimizer also steps parameters outside the model")
    return [home[id(p)] for p in trained]


def _over_stack(values: list[list[float]]) -> Hyper:
    """One number when all agree, else the numbers of each model: one, or one a tensor."""
    if len({value for row in values for value in row}) == 1:
        return values[0][0]
    if all(len(set(row)) == 1 for row in values):
        return torch.tensor([row[:1] for row in values], dtype=torch.float64)
    return torch.tensor(values, dtype=torch.float64)


def _used(hyper: Hyper) -> bool:
    return isinstance(hyper, Tensor) or hyper != 0


def _watches_only(hook: object) -> bool:
    return getattr(hook, "watches_only", False)


def _require_untouched(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what acts in a step beside the optimizer's class: a stack would drop it."""
    for name, hooks in vars(optimizer).items():
        if name.startswith("_optimizer_step") and not all(map(_watches_only, hooks.values())):
            raise NotStackableError("the optimizer has a hook on its step")
    if _global_optimizer_pre_hooks or _global_optimizer_post_hooks:
        raise NotStackableError("a hook is registered on the step of every optimizer")
    if any(name in vars(optimizer) for name in ("step", "zero_grad")):
        raise NotStackableError("the optimizer's step is wrapped")
    if optimizer.state:
        raise NotStackableError("the optimizer has a state before its first step")
    for name, p in model.named_parameters():
        if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
            raise NotStackableError(f"parameter {name} has a hook on its gradient")
    for name, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            raise NotStackableError(f"module {name or 'model'} has a hook on its backward pass")
