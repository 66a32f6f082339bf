"""A parametrization as something to call: ``(model, width, lr) -> optimizer``. Picklable."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import nn

from thetaone.errors import InputError, MismatchError, TaskError
from thetaone.parametrization._names import wildcard
from thetaone.parametrization.applying._axes import (
    INIT_SCALE,
    MULTIPLIERS,
    axis_folds,
    axis_options,
    multiplied,
    require_parts,
    scale_initial_values,
    scaled_initial,
)
from thetaone.parametrization.applying._parametrize import build_optimizer, parametrize
from thetaone.parametrization.applying._prescribe import (
    CHOICES,
    Optimizers,
    by_role,
    optimizer_name,
    prescribe,
    read_members,
)
from thetaone.parametrization.reading import (
    FirstBatch,
    Sample,
    parameters_of,
    read_blueprint,
    rms_of,
)
from thetaone.parametrization.rules import Pair, assign, pair_of
from thetaone.records import AxisValues, Blueprint, Prescription, Task

Builder = Callable[..., torch.optim.Optimizer]  # (model, width, lr, **axes)
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_ACTING = ("rescale", "init", "generator")  # of parametrize, not of prescribe
BASE_DRAWS = 4  # base models whose initial sizes are pooled: halves the noise of small tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Parametrization:
    """Builds the optimizer of a model of any width from a rate meant at the base width.

    Attributes:
        label: ``mup``, ``sp``, or the name of the user's callable.
        optimizer: Class, name or mapping, as ``prescribe`` takes it.
        options: Options of ``parametrize`` and of the optimizer.
        task: On whose first batch models are read.
        base: Blueprint of the base model (``mup``).
        base_width: Width of the base [features].
        builder: The user's callable, when there is one.
        parts: Multiplier (an axis of a sweep) to patterns of the weights that it is a factor on.
    """

    label: str
    optimizer: Optimizers
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    task: Task | None = None
    base: Blueprint | None = None
    base_width: int = 0
    builder: Builder | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    _variants: "dict[tuple[AxisValues, bool], Parametrization]" = field(
        default_factory=dict, compare=False, repr=False
    )
    _prescriptions: dict[Shapes, Prescription] = field(
        default_factory=dict[Shapes, Prescription], compare=False, repr=False
    )

    @property
    def optimizer_name(self) -> str:
        """Name for tables: the class, or the classes of a mapping; the label of a callable."""
        return self.label if self.builder is not None else optimizer_name(self.optimizer)

    def __call__(
        self, model: nn.Module, width: int, lr: float, **axes: float
    ) -> torch.optim.Optimizer:
        """The optimizer of ``model``; in ``mup`` its initial values are rescaled in place.

        Args:
            model: Freshly initialized.
            width: Its width.
            lr: Learning rate at the base width.
            **axes: Options of the optimizer for this model, ``init_scale`` (on the initial values
                of its matrices) and multipliers; a user's callable gets them as they are.

        Raises:
            MismatchError: The model has the base's shapes though ``width`` differs.
            InputError: A multiplier of weights that the model has not.
        """
        if self.builder is not None:
            return self.builder(model, width, lr, **axes)
        if axes:
            return self._varied_call(model, width, lr, axes)
        prescription = self.prescription(model)
        if prescription is None:
            (member,) = read_members(self.optimizer, self.options).values()
            return member.build(model.parameters(), lr)
        if self.base is not None and width != self.base_width:
            check_grows(self.base, model, self.base_width, width)
        options = {"rescale": True, **self.options}  # a task's models are fresh
        return parametrize(model, base=prescription, optimizer=self.optimizer, lr=lr, **options)

    def _varied_call(
        self, model: nn.Module, width: int, lr: float, axes: Mapping[str, float]
    ) -> torch.optim.Optimizer:
        """Options first, then what acts on values: a multiplier is folded into values and rates."""
        require_parts(model, self.parts, axes)
        folds = axis_folds(self.parts, axes)
        optimizer = self.varied(axes)(model, width, lr)
        if folds:
            folded = self.varied(axes, folds)
            prescription = folded.prescription(model)
            assert prescription is not None  # there are folds, and no builder
            members = read_members(self.optimizer, optimizer_options(folded.options))
            optimizer = build_optimizer(model, prescription, members, lr)
        scale_initial_values(model, axes.get(INIT_SCALE, 1.0), folds)
        return optimizer

    def prescription_at(self, model: nn.Module, axes: Mapping[str, float]) -> Prescription | None:
        """What a model gets at some values of axes, its initial values included.

        Where ``__call__`` multiplies them by a factor, this says their root mean square.

        Raises:
            InputError: A multiplier of weights that the model has not.
        """
        require_parts(model, self.parts, axes)
        prescription = self.varied(axes, axis_folds(self.parts, axes)).prescription(model)
        if prescription is None:
            return None
        return scaled_initial(prescription, model, axes.get(INIT_SCALE, 1.0))

    def varied(
        self, axes: Mapping[str, float], folds: Mapping[str, float] | None = None
    ) -> "Parametrization":
        """This parametrization with other options of the optimizer, and perhaps further folds."""
        key = (tuple(sorted(axes.items())), bool(folds))
        if key not in self._variants:
            options = axis_options(self.optimizer, self.options, axes)
            if folds:
                options["folds"] = {**options.get("folds", {}), **folds}
            self._variants[key] = replace(self, options=options, _variants={}, _prescriptions={})
        return self._variants[key]

    def prescription(self, model: nn.Module) -> Prescription | None:
        """What a model gets; ``None`` in plain torch and for a user's callable.

        Models of equal shapes get one prescription, read once.
        """
        mixed = len(by_role(self.optimizer)) > 1 or "folds" in self.options
        if self.builder is not None or (self.base is None and not mixed):
            return None
        key = tuple((name, tuple(p.shape)) for name, p in model.named_parameters())
        if key not in self._prescriptions:
            sample = None if self.task is None else FirstBatch(self.task)
            base = self.base
            if base is None:  # in a mixture of plain torch nothing grows over itself
                base = read_blueprint(model, sample=sample, measure=False)
            options = {k: v for k, v in self.options.items() if k not in _ACTING}
            self._prescriptions[key] = prescribe(
                model, base=base, optimizer=self.optimizer, **{"sample": sample, **options}
            )
        return self._prescriptions[key]


def optimizer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options of a parametrization those that an optimizer's constructor takes."""
    return {name: v for name, v in options.items() if name not in (*CHOICES, *_ACTING)}


def check_grows(base: Blueprint, model: nn.Module, base_width: int, width: int) -> None:
    """Refuse a task whose model does not depend on its width.

    Raises:
        MismatchError: All shapes are the same.
    """
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    if [site.shape for site in base.sites] == shapes:
        raise MismatchError(
            f"model(width={width}) has the same shapes as model(width={base_width}): the model's "
            "width does not change. Make task.model use its width argument"
        )


def make_parametrization(
    parametrization: str | Builder,
    task: Task,
    base_width: int,
    optimizer: Optimizers = torch.optim.AdamW,
    options: Mapping[str, Any] | None = None,
    *,
    depth: int | None = None,
    other_width: int | None = None,
    axes: Collection[str] = (),
) -> Parametrization:
    """A parametrization: ``mup``, ``sp`` (plain torch) or the user's own callable.

    For ``mup`` the base is built ``BASE_DRAWS`` times with torch's RNG forked, and only its shapes
    and initial sizes are kept, so that it is small and can be sent to another process.

    Args:
        parametrization: ``"mup"``, ``"sp"``, or ``(model, width, lr) -> optimizer``.
        task: Whose ``model(base_width)`` is the base.
        base_width: Width at which the learning rate is tuned [features].
        optimizer: Class, name or mapping, as ``prescribe`` takes it.
        options: Choices of ``prescribe`` and options of the optimizer.
        depth: Depth of the base, for models of several depths; ``None``: ``task.model(width)``.
        other_width: At which the roles of a mixture show; twice the base's unless given.
        axes: Names of axes that trainings will differ in.

    Returns:
        The parametrization.

    Raises:
        InputError: An unknown parametrization.
        UnknownOptimizerError: No update family is known for the optimizer.
        TaskError: ``task.model`` does not return a module.
    """
    options = dict(options or {})
    if callable(parametrization):
        label = getattr(parametrization, "__name__", type(parametrization).__name__)
        return Parametrization(label=label, optimizer=optimizer, builder=parametrization)
    read_members(optimizer, {})
    mixed = by_role(optimizer)
    in_parts = bool(MULTIPLIERS.keys() & set(axes))
    if parametrization == "sp" and len(mixed) == 1 and not in_parts:
        plain = optimizer_options(options)
        return Parametrization(label="sp", optimizer=optimizer, options=plain)
    if parametrization not in ("mup", "sp"):
        raise InputError(
            f"parametrization={parametrization!r}: choose 'mup', 'sp', or pass a callable "
            "(model, width, lr) -> optimizer"
        )
    sample = options.get("sample", FirstBatch(task))
    base = base_blueprint(lambda: build_model(task, base_width, depth), sample=sample)
    parts: dict[str, tuple[str, ...]] = {}
    if len(mixed) > 1 or in_parts:
        with torch.random.fork_rng():
            other = build_model(task, other_width or 2 * base_width, depth)
        wider = read_blueprint(other, sample=sample, measure=False)
        pair = pair_of(wider, base)
        parts = multiplied(named_roles(pair, set(MULTIPLIERS.values())), wider, axes)
        if len(mixed) > 1:
            roles = named_roles(pair, set(mixed))
            options["roles"] = {**roles, **options.get("roles", {})}
    if parametrization == "sp":
        if len(mixed) == 1:
            options = optimizer_options(options)
        return Parametrization(
            label="sp", optimizer=optimizer, options=options, task=task, parts=parts
        )
    return Parametrization(
        label="mup", optimizer=optimizer, options=options, task=task, base=base,
        base_width=base_width, parts=parts,
    )  # fmt: skip


def named_roles(pair: Pair, roles: set[str]) -> dict[str, str]:
    """The parameters that have one of some roles, as overrides that hold at the base width too.

    There nothing grows, and shapes do not tell which optimizer of a mixed set-up steps what.

    Args:
        pair: The same model at another width, and at the base width.
        roles: Those looked for.

    Returns:
        Glob pattern (the name itself where a pattern would catch another role) to role.
    """
    alike: dict[str, dict[str, str]] = defaultdict(dict)
    for site in pair.target.sites:
        assignment = assign(pair, site)  # one left open has an override of the user's
        alike[wildcard(site.name)][site.name] = "" if assignment.problem else assignment.role
    named: dict[str, str] = {}
    for pattern, each in alike.items():
        same = len(set(each.values())) == 1
        names = {pattern: next(iter(each.values()))} if same else each
        named |= {name: role for name, role in names.items() if role in roles}
    return named


def base_blueprint(
    factory: Callable[[], nn.Module], draws: int = BASE_DRAWS, *, sample: Sample = None
) -> Blueprint:
    """The blueprint of a base, its initial sizes pooled over several draws.

    Torch's RNG is forked: the caller's stream goes on undisturbed.

    Args:
        factory: Builds the base.
        draws: How often [count].
        sample: Inputs of one forward pass.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = read_blueprint(factory(), sample=sample)
        others = [_sizes(factory()) for _ in range(draws - 1)]
    sites = [
        site.model_copy(
            update={"rms": _pooled([site.rms, *(sizes[site.name] for sizes in others)])}
        )
        for site in first.sites
    ]
    return first.model_copy(update={"sites": tuple(sites)})


def _sizes(model: nn.Module) -> dict[str, float | None]:
    return {name: None if p.is_meta else rms_of(p) for name, p in parameters_of(model).items()}


def build_model(task: Task, width: int, depth: int | None = None) -> nn.Module:
    """``task.model(width)``, or ``task.model(width, depth)``.

    Raises:
        TaskError: It is not a module.
    """
    model = task.model(width) if depth is None else _deep(task, width, depth)
    if not isinstance(model, nn.Module):
        raise TaskError(
            f"task.model(width={width}) returned {type(model).__name__}: return a torch.nn.Module"
        )
    return model


def _deep(task: Task, width: int, depth: int) -> nn.Module:
    make = cast(Callable[[int, int], nn.Module], task.model)
    try:
        inspect.signature(make).bind(width, depth)
    except TypeError:
        raise TaskError(
            "task.model takes no depth: define model(width, depth) to compare depths"
        ) from None
    return make(width, depth)


def _pooled(sizes: list[float | None]) -> float | None:
    squares = [size**2 for size in sizes if size is not None]
    return (sum(squares) / len(squares)) ** 0.5 if len(squares) == len(sizes) else None
