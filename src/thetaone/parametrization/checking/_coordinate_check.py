"""The coordinate check: small trainings at several widths or depths, one verdict a layer."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, PrescriptionError
from thetaone.parametrization._names import place, read_stacks
from thetaone.parametrization.applying import (
    Builder,
    Optimizers,
    Parametrization,
    build_model,
    check_grows,
    make_parametrization,
)
from thetaone.parametrization.checking._observe import Key, train_and_observe
from thetaone.parametrization.checking._verdict import BANDS, Band, judge
from thetaone.parametrization.reading import named_branches, read_blueprint, read_branches
from thetaone.parametrization.rules import _depth as depth
from thetaone.parametrization.rules import _folds as folds
from thetaone.parametrization.rules import assign, match_base, override
from thetaone.records import ALIGNMENT, DEPTH, OWN_UPDATE, WIDTH, Blueprint, CoordinateCheck, Task

Observed = dict[Key, list[list[float]]]  # [seeds][sizes]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The models that are compared.

    Attributes:
        task: Builds them.
        widths: One, or what grows.
        depths: What grows, when it is not the width.
    """

    task: Task
    widths: tuple[int, ...]
    depths: tuple[int, ...] = ()

    @property
    def axis(self) -> str:
        """What grows."""
        return DEPTH if self.depths else WIDTH

    @property
    def values(self) -> tuple[int, ...]:
        """Its values, ascending."""
        return self.depths or self.widths

    def width(self, size: int) -> int:
        """Width of the model of a size."""
        return self.widths[0] if self.depths else size

    def model(self, size: int) -> nn.Module:
        """The model of a size."""
        return build_model(self.task, self.width(size), size if self.depths else None)


def coordinate_check(
    task: Task,
    *,
    widths: Sequence[int],
    lr: float,
    depths: Sequence[int] = (),
    optimizer: Optimizers = torch.optim.AdamW,
    parametrization: str | Builder = "mup",
    seeds: int = 3,
    steps: Sequence[int] = (1, 3),
    base_width: int | None = None,
    bands: Mapping[str, Band] = BANDS,
    name: str = "",
    **options: Any,
) -> CoordinateCheck:
    """Whether every layer's features move as much at the largest width as at the smallest.

    Trains a few steps at each width and seed, and fits exponents of ‖Δh‖_RMS, ‖ΔW h‖_RMS,
    ‖W‖_RMS→RMS, ‖ΔW‖_RMS→RMS and alignment against width: all are 0 when the parametrization is
    right. With ``depths`` the same against depth, averaged over the blocks of a stack; what a
    residual branch adds is expected to fall as depth^-α.

    Args:
        task: Gives ``model``, ``batches`` and ``loss``.
        widths: At least two, ascending or not [features]; one when depths are compared.
        lr: Learning rate at the base.
        depths: At least two; ``task.model(width, depth)`` builds them [blocks].
        optimizer: Class, name or mapping, as ``prescribe`` takes it.
        parametrization: ``"mup"``, ``"sp"``, or ``(model, width, lr) -> optimizer``.
        seeds: Trainings at each size [count].
        steps: Steps after which features are compared with their first values [count].
        base_width: Where ``lr`` was tuned; the smallest width unless given.
        bands: Exponents that count as Θ(1), by quantity.
        name: Of the task, for the record.
        **options: Choices of ``prescribe`` and options of the optimizer.

    Returns:
        The record; ``.passed``, ``.failures``, ``print`` and ``.plot()``.

    Raises:
        InputError: Fewer than two sizes, or a step or seed count below 1.
        MismatchError: The model's shapes do not depend on its width.
        TaskError: A part of the task returns the wrong thing.
    """
    sizes = Sizes(task, tuple(sorted(set(widths))), tuple(sorted(set(depths))))
    moments = tuple(sorted(set(steps)))
    _check_request(sizes, moments, seeds)
    if sizes.depths:
        options = {"sample": _first_loss(task), **options}
    with torch.random.fork_rng():
        ends = (sizes.values[0], sizes.values[-1])
        narrow, wide = (_blueprint(sizes, size, options) for size in ends)
        if not sizes.depths:
            check_grows(narrow, wide, sizes.values[0], sizes.values[-1])
        recipe = make_parametrization(
            parametrization,
            task,
            base_width or sizes.widths[0],
            optimizer,
            options,
            depth=sizes.depths[0] if sizes.depths else None,
        )
        observed = _observe(
            sizes, recipe, narrow, wide, lr=lr, seeds=seeds, steps=moments, options=options
        )
    complete = {
        key: rows
        for key, rows in observed.items()
        if all(len(row) == len(sizes.values) for row in rows) and not _unmeasured(key, rows)
    }
    roles = _roles(narrow, wide, options, sizes)
    return CoordinateCheck(
        task=name,
        parametrization=recipe.label,
        optimizer=recipe.optimizer_name,
        lr=lr,
        axis=sizes.axis,
        sizes=sizes.values,
        steps=moments,
        seeds=seeds,
        rows=judge(_in_model_order(complete, roles), sizes.values, roles, bands, axis=sizes.axis),
    )


def _observe(
    sizes: Sizes,
    recipe: Parametrization,
    narrow: Blueprint,
    wide: Blueprint,
    *,
    lr: float,
    seeds: int,
    steps: Sequence[int],
    options: Mapping[str, Any],
) -> Observed:
    """Every quantity over what is expected of it, for each seed and size."""
    observed: Observed = defaultdict(lambda: [[] for _ in range(seeds)])
    stacks = read_stacks(wide, narrow)
    for size in sizes.values:
        target = _blueprint(sizes, size, options)
        expected = folds.expected_sizes(target, narrow)
        if sizes.depths:
            expected = depth.expected_sizes(target, narrow, options.get("depth_exponent") or 1.0)
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = sizes.model(size)
            built = recipe(model, sizes.width(size), lr)
            found = train_and_observe(
                model, built, sizes.task, seed=seed, steps=steps, blocks=bool(sizes.depths)
            )
            for key, value in (_over_blocks(found, stacks) if sizes.depths else found).items():
                observed[key][seed].append(value / expected.get(key[:2], 1.0))
    return observed


def _over_blocks(found: Mapping[Key, float], stacks: frozenset[str]) -> dict[Key, float]:
    """Root mean square over the blocks of a stack, by place.

    Of the stream, which is what a block itself puts out, the last block's.
    """
    gathered: dict[Key, list[float]] = defaultdict(list)
    for (layer, quantity, step), value in found.items():
        where = place(layer, stacks)
        if where.endswith("*"):
            gathered[where, quantity, step] = [value]
        else:
            gathered[where, quantity, step].append(value)
    return {
        key: math.sqrt(sum(v * v for v in values) / len(values)) for key, values in gathered.items()
    }


def _first_loss(task: Task) -> Any:
    """The forward pass in which residual branches are found."""
    return lambda model: task.loss(model, next(iter(task.batches(0))))


def _check_request(sizes: Sizes, steps: Sequence[int], seeds: int) -> None:
    named = f"widths={list(sizes.widths)}"
    if sizes.depths:
        named += f", depths={list(sizes.depths)}"
        if len(sizes.widths) != 1:
            raise InputError(f"{named}: depths are compared at one width; pass widths=[one]")
    if len(sizes.values) < 2:
        raise InputError(f"{named}: need at least 2 different {sizes.axis}s to compare")
    if min(*sizes.values, *sizes.widths) < 1 or not steps or steps[0] < 1 or seeds < 1:
        raise InputError(f"{named}, steps={list(steps)}, seeds={seeds}: each must be 1 or more")


def _blueprint(sizes: Sizes, size: int, options: Mapping[str, Any]) -> Blueprint:
    model = sizes.model(size)
    blueprint = read_blueprint(model, measure=False)
    if not sizes.depths:
        return blueprint
    patterns = options.get("branches", ())
    read = named_branches(model, patterns) if patterns else read_branches(model, options["sample"])
    return blueprint.model_copy(update={"branches": read})


def _roles(
    narrow: Blueprint, wide: Blueprint, options: Mapping[str, Any], sizes: Sizes
) -> dict[str, str]:
    """Role of each layer's weight, as far as shapes tell; only used to name causes."""
    if sizes.depths:  # no shape grows: the layers, in their order
        stacks = read_stacks(wide, narrow)
        names = [place(site.name, stacks) for site in wide.sites]
        return {layer: "" for name in names for layer in (name.rpartition(".")[0], name)}
    bases = match_base(wide, narrow)
    roles: dict[str, str] = {}
    forced = options.get("roles", {})
    for site in wide.sites:
        layer, _, local = site.name.rpartition(".")
        try:
            role = assign(site, bases[site.name], override(site.name, forced)).role
        except PrescriptionError:
            continue
        if local == "weight" or layer not in roles:
            roles[layer] = role
        roles[site.name] = role
    return roles


def _unmeasured(key: Key, rows: list[list[float]]) -> bool:
    return key[1] in (ALIGNMENT, OWN_UPDATE) and any(
        value != value for row in rows for value in row
    )


def _in_model_order(
    observed: Mapping[Key, list[list[float]]], roles: Mapping[str, str]
) -> dict[Key, list[list[float]]]:
    """Rows in the order of the model's parameters; layers that only pass features on come last."""
    place = {layer: index for index, layer in enumerate(roles)}
    return dict(
        sorted(observed.items(), key=lambda item: (place.get(item[0][0], len(place)), item[0][2]))
    )
