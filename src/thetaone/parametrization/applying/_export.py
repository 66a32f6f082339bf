"""``export``: the same function with plain weights, for whoever has not installed thetaone."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_parametrize

from thetaone.errors import InputError
from thetaone.parametrization._scaling import (
    INPUT_FACTOR,
    ScaleInput,
    ScaleOutput,
    set_input_factor,
    with_class_alone,
)

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")


def export(model: nn.Module) -> nn.Module:
    """A copy that computes the same without anything of thetaone: weights, config, class.

    Factors that a parametrization of this library applies are multiplied into the weights, a
    factor on the input of a tied readout into a readout of its own where the model's ``config``
    says that it is not tied any more; watching hooks are left behind. The given model stays.

    Args:
        model: Trained or not; compiled or wrapped by DDP, it is unwrapped.

    Returns:
        A module of the model's own class: ``state_dict``, ``save_pretrained``, ``torch.export``
        and ``pickle`` need no thetaone to be read again.

    Raises:
        InputError: A factor cannot be written into weights, or weights are sharded or on the meta
            device: the message says what to do.

    Examples:
        >>> from thetaone.parametrization import parametrize
        >>> model = nn.Linear(4, 4)
        >>> optimizer = parametrize(model, base=nn.Linear(2, 2), optimizer=torch.optim.SGD, lr=0.1)
        >>> torch.equal(export(model)(torch.ones(4)), model(torch.ones(4)))
        True
    """
    model = _unwrapped(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta or hasattr(tensor, "full_tensor"):
            where = "on the meta device" if tensor.is_meta else "sharded"
            raise InputError(
                f"{name} is {where}: load a whole state_dict into a model on one device first "
                "(torch.distributed.checkpoint.state_dict.get_model_state_dict, full_state_dict)"
            )
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in plain.named_modules():
            _bake_parametrizations(name, module)
            _bake_factors(plain, name, module)
            for hooks in (getattr(module, kind) for kind in _HOOKS):
                for key in [key for key, hook in hooks.items() if _of_thetaone(hook)]:
                    del hooks[key]
    return plain


def _unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside what ``torch.compile`` or DDP put around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _bake_parametrizations(name: str, module: nn.Module) -> None:
    """Write what this library's parametrizations compute into the weights themselves."""
    if not torch_parametrize.is_parametrized(module):
        return
    with_class_alone(module)
    lists: Any = module.parametrizations
    for local in list(lists):
        ours = [_of_thetaone(one) for one in lists[local]]
        if any(ours) and not all(ours):
            raise InputError(
                f"{name}.{local} has a factor of thetaone's among parametrizations of your own: "
                "remove yours first (torch.nn.utils.parametrize.remove_parametrizations), then "
                "export"
            )
        if any(ours):
            torch_parametrize.remove_parametrizations(module, local, leave_parametrized=True)


def _bake_factors(model: nn.Module, name: str, module: nn.Module) -> None:
    """Write the factors of hooks into weights, or say why that cannot be."""
    if any(isinstance(hook, ScaleOutput) for hook in module._forward_hooks.values()):
        raise InputError(
            f"{name} ends a residual branch in no linear parameter, so its factor 1/depth cannot "
            "be written into weights: end the branch in a linear layer or a gain, or multiply by "
            "the factor in the model's own code"
        )
    if not any(isinstance(hook, ScaleInput) for hook in module._forward_pre_hooks.values()):
        return
    factor = float(module.get_buffer(INPUT_FACTOR))
    config = getattr(model, "config", None)
    if not hasattr(config, "tie_word_embeddings") or not isinstance(module.weight, Tensor):
        raise InputError(
            f"{name} shares its weight with an embedding and multiplies its input by "
            f"{factor:.4g}: no weight can hold that factor while both are one tensor. Put a "
            "norm with a gain before it, which can, or give the readout a weight of its own"
        )
    set_input_factor(module, 1.0)
    module.weight = nn.Parameter(module.weight * factor, module.weight.requires_grad)
    config.tie_word_embeddings = False  # pyright: ignore[reportOptionalMemberAccess]


def _of_thetaone(thing: Any) -> bool:
    """Whether a hook or a module is this library's."""
    return any(part.split(".")[0] == __name__.split(".")[0] for part in _modules(thing))


def _modules(thing: Any) -> Iterator[str]:
    yield type(thing).__module__
    owner = getattr(thing, "__self__", None)  # of a bound method
    for one in (thing, owner):
        module = getattr(one, "__module__", None)
        if isinstance(module, str):
            yield module
