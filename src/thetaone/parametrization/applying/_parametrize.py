"""``parametrize``: one call from a plain model to a plain optimizer with the right rates."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thetaone.errors import InputError
from thetaone.parametrization.applying._fresh import check_fresh, check_kept
from thetaone.parametrization.applying._initialize import (
    check_placeable,
    initialize,
    place_factors,
    redraw,
)
from thetaone.parametrization.applying._mixed_optimizer import MixedOptimizer
from thetaone.parametrization.applying._prescribe import (
    Base,
    Optimizers,
    build_base,
    prescribe,
    read_members,
)
from thetaone.parametrization.applying._schedules import guard_ratios
from thetaone.parametrization.reading import Sample, trained_parameters
from thetaone.parametrization.rules import INDEPENDENT, SHRINKAGE, Member
from thetaone.records import Prescription, Rule

Group = dict[str, Any]


def parametrize(
    model: nn.Module,
    *,
    base: Base,
    optimizer: Optimizers = torch.optim.AdamW,
    lr: float | Tensor,
    rescale: bool | None = None,
    init: str | None = None,
    generator: torch.Generator | None = None,
    roles: Mapping[str, str] | None = None,
    folds: Mapping[str, float] | None = None,
    decay: str = SHRINKAGE,
    decay_vectors: bool = True,
    depth_exponent: float | None = 1.0,
    branches: Sequence[str] = (),
    frozen: str = "error",
    sample: Sample = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Make the learning rate tuned on ``base`` the right one for ``model``.

    Initial values are rescaled in place and the optimizer gets one group per distinct rate; no
    layer is replaced, nothing is stored on parameters. At the base width the result is bit for
    bit what plain torch does.

    Args:
        model: The target, freshly initialized.
        base: See ``prescribe``.
        optimizer: See ``prescribe``.
        lr: Learning rate at the base width; a tensor keeps its device and type in every group.
        rescale: ``False`` leaves what the values compute alone (a checkpoint was or will be
            loaded): rows that get a factor in the forward pass are divided by it. Unless given,
            values are brought to size, and refused where they look trained.
        init: ``"orthogonal"`` or ``"gaussian"`` draws matrices anew; ``None`` keeps yours.
        generator: For ``init``.
        roles: See ``prescribe``, as for the arguments that follow.
        folds: Factors to fold into parameters.
        decay: Weight-decay policy.
        decay_vectors: Whether vectors are decayed.
        depth_exponent: Of the factor on residual branches.
        branches: What ends residual branches.
        frozen: What to do with parameters that need no gradient.
        sample: Inputs of one forward pass.
        **options: For the optimizer's constructor.

    Returns:
        An instance of the optimizer class (of ``MixedOptimizer`` for a mapping of several).

    Raises:
        PrescriptionError: See ``prescribe``; the model is untouched.

    Examples:
        >>> wide, narrow = nn.Linear(64, 64), nn.Linear(16, 16)
        >>> adam = parametrize(wide, base=narrow, optimizer=torch.optim.Adam, lr=0.5)
        >>> [group["lr"] for group in adam.param_groups]
        [0.125, 0.5]
    """
    members = read_members(optimizer, options, call=parametrize)
    base = build_base(base)
    prescription = prescribe(
        model, base=base, optimizer=optimizer, roles=roles, folds=folds, decay=decay,
        decay_vectors=decay_vectors, depth_exponent=depth_exponent, branches=branches,
        frozen=frozen, sample=sample, **options,
    )  # fmt: skip
    check_placeable(model, prescription)
    keep = rescale is False and init is None
    if keep:
        check_kept(model, prescription, base)
    built = build_optimizer(model, prescription, members, lr)
    if init is not None:
        redraw(model, prescription, init, generator)
    if rescale is None and init is None:
        check_fresh(model, prescription, base)
    if rescale is not False:
        initialize(model, prescription)
    place_factors(model, prescription, keep=keep)
    return built


def build_optimizer(
    model: nn.Module,
    prescription: Prescription,
    members: Mapping[str, Member],
    lr: float | Tensor,
) -> torch.optim.Optimizer:
    """The optimizer with merged groups, without touching the model's values.

    Args:
        model: Whose parameters are stepped.
        prescription: Its rules.
        members: Optimizers by role; each steps the rules that name its class.
        lr: Learning rate at the base width.
    """
    by_class = {member.cls.__name__: member for member in members.values()}
    parameters = trained_parameters(model)
    parts: list[torch.optim.Optimizer] = []
    for name, member in by_class.items():
        rules = [rule for rule in prescription.rules if rule.optimizer == name]
        if not rules:
            continue
        options = dict(member.options)
        rate = options.pop("lr", lr)
        without_lr = Member(cls=member.cls, options=options)
        groups = _groups(rules, parameters, without_lr, rate, prescription.decay_policy)
        if "lr" in member.options:  # so that lr · lr_factor is a group's rate in a mixture too
            for group in groups:
                group["lr_factor"] *= float(rate) / float(lr)
        part = without_lr.build(groups, rate)
        if member.family.sums_squares:
            _scale_sums(part, rules, parameters)
        parts.append(part)
    if not parts:
        raise InputError(
            f"the prescription is for {prescription.optimizer} and optimizer= names "
            f"{', '.join(by_class)}: pass the same optimizer, or prescribe again"
        )
    built = parts[0] if len(parts) == 1 else MixedOptimizer(parts)
    guard_ratios(built)
    return built


def _groups(
    rules: list[Rule],
    parameters: Mapping[str, nn.Parameter],
    member: Member,
    lr: float | Tensor,
    policy: str,
) -> list[Group]:
    """Parameters with equal options in one group, in order of first appearance."""
    merged: dict[tuple[tuple[str, Any], ...], Group] = {}
    plain = _plain_group(member, lr, parameters[rules[0].name])
    for rule in rules:
        values = _values(rule, plain, lr, independent=policy == INDEPENDENT)
        key = tuple((k, repr(v)) for k, v in values.items())
        group = merged.setdefault(key, {"params": [], **values})
        group["params"].append(parameters[rule.name])
    return list(merged.values())


def _values(rule: Rule, plain: Group, lr: float | Tensor, *, independent: bool) -> Group:
    """The options of one parameter that differ from the optimizer's own."""
    rate = lr * rule.lr_factor if rule.lr_factor != 1.0 else lr
    values: Group = {"lr_factor": rule.lr_factor}
    if isinstance(rate, Tensor):
        values["lr"] = rate.clone()  # schedules write into it: a shared one is scheduled twice
    elif rule.lr_factor != 1.0:
        values["lr"] = rate
    eps = plain.get("eps")
    if eps is not None and rule.eps_factor != 1.0:
        values["eps"] = _scaled_eps(eps, rule)
    decay = plain.get("weight_decay")
    if decay and (independent or rule.decay_factor != 1.0):
        per_rate = decay / float(lr) if independent else decay
        values["weight_decay"] = per_rate * rule.decay_factor
    return values


def _scaled_eps(eps: Any, rule: Rule) -> Any:
    """ε is compared with the gradient; Adafactor's second one with the RMS of the weight."""
    if not isinstance(eps, tuple):
        return eps * rule.eps_factor
    first, second = eps
    return (None if first is None else first * rule.eps_factor, second * rule.init_factor)


def _plain_group(member: Member, lr: float | Tensor, parameter: Tensor) -> Group:
    """The options that the optimizer gives a parameter by itself, its bases' defaults among them.

    Args:
        member: Built for one number, so that nothing of the model is touched.
        lr: Its rate.
        parameter: Whose rank, type and device the number has.
    """
    number = nn.Parameter(parameter.detach().new_zeros((1,) * parameter.dim()))
    return member.build([number], lr).param_groups[0]


def _scale_sums(
    optimizer: torch.optim.Optimizer, rules: list[Rule], parameters: Mapping[str, nn.Parameter]
) -> None:
    """Adagrad starts its sum of squared gradients at one value: give each its own scale."""
    for rule in rules:
        optimizer.state[parameters[rule.name]]["sum"].mul_(rule.eps_factor**2)
