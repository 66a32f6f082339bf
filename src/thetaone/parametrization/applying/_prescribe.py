"""``prescribe``: reads model and base, decides, changes nothing."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, MismatchError, UnknownOptimizerError, install_command
from thetaone.parametrization.reading import (
    Sample,
    check_apart,
    measure_meta,
    named_branches,
    parameters_of,
    read_blueprint,
    read_by_class,
    trained_parameters,
)
from thetaone.parametrization.rules import (
    SHRINKAGE,
    Choices,
    Member,
    decide,
    update_family,
)
from thetaone.records import Blueprint, Prescription, check_options, did_you_mean, takes_option


class UnreadProgramWarning(UserWarning):
    """No forward pass of a model could be read, so that its own code is not seen."""


Base = nn.Module | Callable[[], nn.Module] | Blueprint | Prescription | None
Optimizers = type | str | Mapping[str, Any]

CHOICES = (*Choices.__dataclass_fields__, "sample")


def prescribe(
    model: nn.Module,
    *,
    base: Base,
    optimizer: Optimizers = torch.optim.AdamW,
    roles: Mapping[str, str] | None = None,
    folds: Mapping[str, float] | None = None,
    decay: str = SHRINKAGE,
    decay_vectors: bool = True,
    depth_exponent: float | None = 1.0,
    branches: Sequence[str] = (),
    frozen: str = "error",
    sample: Sample = None,
    **options: Any,
) -> Prescription:
    """Initialization, learning rate, decay and ε of every parameter; nothing is changed.

    Tensor Programs V, Table 3, in ratios to the base: at the base width every factor is 1.

    Args:
        model: The target; may be on the meta device.
        base: A model at the width where the learning rate was tuned, a factory of one, its
            blueprint, or a saved prescription (checked against ``model`` and returned).
            ``None`` prescribes from each layer's own fans (the spectral condition).
        optimizer: A class, its name in ``torch.optim``, or a mapping from roles to classes or
            ``(class, options)``, with ``"rest"`` for the other roles.
        roles: Glob pattern of names to role; wins over what is read.
        folds: Glob pattern of names to a forward factor that is folded into the parameter.
        decay: Weight-decay policy: ``shrinkage``, ``sqrt-width``, ``unscaled``, ``independent`` or
            ``none``.
        decay_vectors: Whether vectors are decayed.
        depth_exponent: α of the factor depth^-α on residual branches, 1/2 to 1; ``None`` leaves
            depth alone.
        branches: Glob patterns of what ends residual branches, where a pass cannot show it.
        frozen: ``error`` or ``skip``: what to do with parameters that need no gradient.
        sample: Inputs of one forward pass: a tensor, a tuple, a mapping of keywords, or a callable
            of the model. Guessed unless given.
        **options: Of the optimizer's constructor; its rule may depend on them.

    Returns:
        The prescription; ``print`` it for a table.

    Raises:
        PrescriptionError: With a subclass that names the cause, the parameter and what to do.

    Examples:
        >>> wide, narrow = nn.Linear(64, 64), nn.Linear(16, 16)
        >>> prescribe(wide, base=narrow, optimizer=torch.optim.Adam)["weight"].lr_factor
        0.25
    """
    choices = Choices(
        roles=roles or {}, folds=folds or {}, decay=decay, decay_vectors=decay_vectors,
        frozen=frozen, depth_exponent=depth_exponent, branches=branches,
    )  # fmt: skip
    check_apart(parameters_of(model))
    if isinstance(base, Prescription):
        check_belongs(base, model)
        return base
    members = read_members(optimizer, options)
    target, narrow = read_pair(model, base, choices, sample)
    prescription = decide(target, narrow, members, choices)
    if target.unread:
        _warn_unread(model, target.unread)
    return prescription


def read_pair(
    model: nn.Module, base: Base, choices: Choices, sample: Sample
) -> tuple[Blueprint, Blueprint | None]:
    """The blueprints of a target and of whatever the user calls its base.

    Raises:
        InputError: The base is none of what it may be.
    """
    target = read_blueprint(model, sample=sample, measure=False)
    narrow, module = _read_base(base, sample)
    if narrow is not None and target.unread and not narrow.unread and module is not None:
        narrow = read_by_class(module, target.unread)
    elif narrow is not None and narrow.unread and not target.unread:
        target = read_by_class(model, narrow.unread, measure=False)
    if choices.branches:
        named = named_branches(model, choices.branches)
        target = target.model_copy(update={"branches": named})
    return target, narrow if module is None else measure_meta(module, narrow, model)


def _read_base(base: Base, sample: Sample) -> tuple[Blueprint | None, nn.Module | None]:
    """A base's blueprint, and the base where it is a model."""
    if base is None or isinstance(base, Blueprint):
        return base, None
    built = build_base(base)
    if not isinstance(built, nn.Module):
        raise InputError(
            f"base={type(base).__name__}: pass a model, a factory without arguments, a blueprint, "
            "a prescription, or None for the spectral condition"
        )
    return read_blueprint(built, sample=sample), built


def build_base(base: Base) -> Base:
    """A factory's model; anything else as it is."""
    if isinstance(base, (nn.Module, Blueprint, Prescription)) or not callable(base):
        return base
    with torch.random.fork_rng():  # the caller's stream goes on undisturbed
        torch.manual_seed(0)
        return base()


def _warn_unread(model: nn.Module, reason: str) -> None:
    """Say that code of the user's was not read; torch's own layers do what their class says."""
    foreign = [m for m in model.modules() if not type(m).__module__.startswith("torch.nn")]
    if foreign:
        warnings.warn(
            f"{type(foreign[0]).__name__} was read by its layers' classes alone, since {reason}: "
            "attention whose heads grow, weights used by functions and factors in the forward pass "
            "are not seen. Pass sample= (inputs of one forward pass, or a callable of the model)",
            UnreadProgramWarning,
            stacklevel=3,
        )


def read_members(
    optimizer: Optimizers, options: Mapping[str, Any], *, call: Callable[..., Any] = prescribe
) -> dict[str, Member]:
    """The optimizer of each role, from a class, a name, or a mapping.

    A name is of ``torch.optim``, else of ``pytorch_optimizer``; ``"Muon+AdamW"`` is the first for
    hidden matrices and the second for the rest. An option goes to each class that takes it.

    Args:
        optimizer: As ``prescribe`` takes it.
        options: Of the constructors.
        call: The public function that was called, for the message on an option of none.

    Raises:
        UnknownOptimizerError: Not an optimizer, or of no known update family.
        InputError: An option that no constructor takes.

    Examples:
        >>> read_members("SGD", {})["rest"].cls.__name__
        'SGD'
        >>> {role: member.cls.__name__ for role, member in read_members("Muon+AdamW", {}).items()}
        {'hidden': 'Muon', 'rest': 'AdamW'}
    """
    members: dict[str, Member] = {}
    for role, entry in by_role(optimizer).items():
        entry, entry_options = entry if isinstance(entry, tuple) else (entry, {})
        cls = optimizer_class(entry) if isinstance(entry, str) else entry
        update_family(cls)
        check_options(entry_options, call=call, constructors=[cls])
        shared = {name: value for name, value in options.items() if takes_option(cls, name)}
        members[role] = Member(cls=cls, options={**shared, **entry_options})
    check_options(options, call=call, constructors=[member.cls for member in members.values()])
    return members


def by_role(optimizer: Optimizers) -> Mapping[str, Any]:
    """Role to optimizer: a mapping as it is, ``"Muon+AdamW"`` as two, anything else for all.

    Examples:
        >>> by_role("Muon+AdamW")
        {'hidden': 'Muon', 'rest': 'AdamW'}
    """
    if isinstance(optimizer, Mapping):
        return optimizer
    if isinstance(optimizer, str) and optimizer.count("+") == 1:
        return dict(zip(("hidden", "rest"), optimizer.split("+"), strict=True))
    return {"rest": optimizer}


def optimizer_name(optimizer: Optimizers) -> str:
    """Name for tables: of the class, or of each class of a mapping, once.

    Examples:
        >>> optimizer_name({"hidden": torch.optim.Muon, "rest": ("AdamW", {"eps": 1e-9})})
        'Muon+AdamW'
    """
    entries = (e[0] if isinstance(e, tuple) else e for e in by_role(optimizer).values())
    names = (entry if isinstance(entry, str) else entry.__name__ for entry in entries)
    return "+".join(dict.fromkeys(names))


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class of a name: of ``torch.optim``, else of ``pytorch_optimizer``, where installed.

    Raises:
        UnknownOptimizerError: Neither has it.

    Examples:
        >>> optimizer_class("AdamW").__module__
        'torch.optim.adamw'
    """
    cls = getattr(torch.optim, name, None)
    where = "torch.optim"
    if cls is None:
        try:
            import pytorch_optimizer
        except ImportError:
            where += f" ({install_command('optimizers')} brings Lion, SignSGD and others)"
        else:
            cls = getattr(pytorch_optimizer, name, None)
            where += " or pytorch_optimizer"
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise UnknownOptimizerError(
            f"optimizer={name!r} is not in {where}: pass the class itself, or a name such as SGD, "
            "Adam, AdamW, or Muon+AdamW for hidden matrices and the rest"
            + did_you_mean(name, _optimizer_names())
        )
    return cls


def _optimizer_names() -> list[str]:
    """Names of all optimizers at hand."""
    homes = [torch.optim, *([sys.modules["pytorch_optimizer"]] if _has_more() else [])]
    classes = (one for home in homes for one in vars(home).values())
    return sorted(
        {
            one.__name__
            for one in classes
            if isinstance(one, type) and issubclass(one, torch.optim.Optimizer)
        }
    )


def _has_more() -> bool:
    return "pytorch_optimizer" in sys.modules


def check_belongs(prescription: Prescription, model: nn.Module) -> None:
    """Refuse a prescription that was made for another model.

    Raises:
        MismatchError: A parameter is missing, new, or of another shape.
    """
    rules = {rule.name: rule for rule in prescription.rules}
    trained = {name: tuple(p.shape) for name, p in trained_parameters(model).items()}
    for name, shape in trained.items():
        if name not in rules:
            raise MismatchError(
                f"{name} {shape} has no rule in the prescription: it was added later, or the "
                "prescription is of another model. Prescribe again"
            )
        if rules[name].shape != shape:
            raise MismatchError(
                f"{name} is {shape} and the prescription is for {rules[name].shape}: "
                "prescribe again for this model"
            )
    untrained = [name for name in rules if name not in trained]
    if untrained:
        raise MismatchError(
            f"the prescription has a rule for {untrained[0]}, which this model does not train: "
            "it is of another model. Prescribe again"
        )
