"""The coordinate check: small trainings at several widths, one verdict a layer."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, PrescriptionError
from thetaone.parametrization.folds import expected_sizes
from thetaone.parametrization.observe import Key, train_and_observe
from thetaone.parametrization.prescribe import Optimizers, read_members
from thetaone.parametrization.recipes import Builder, build_model, check_grows, make_recipe
from thetaone.parametrization.roles import assign, match_base, override
from thetaone.parametrization.sites import read_blueprint
from thetaone.parametrization.verdict import BANDS, Band, judge
from thetaone.records.blueprint import Blueprint
from thetaone.records.coordinates import ALIGNMENT, OWN_UPDATE, CoordinateCheck
from thetaone.records.task import Task


def coordinate_check(
    task: Task,
    *,
    widths: Sequence[int],
    lr: float,
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

    Trains a few steps at each width and seed, and fits exponents of ‖Δh‖_RMS, ‖W‖_RMS→RMS,
    ‖ΔW‖_RMS→RMS and alignment against width: all are 0 when the parametrization is right.

    Args:
        task: Gives ``model``, ``batches`` and ``loss``.
        widths: At least two, ascending or not [features].
        lr: Learning rate at the base width.
        optimizer: Class, name or mapping, as ``prescribe`` takes it.
        parametrization: ``"mup"``, ``"sp"``, or ``(model, width, lr) -> optimizer``.
        seeds: Trainings at each width [count].
        steps: Steps after which features are compared with their first values [count].
        base_width: Where ``lr`` was tuned; the smallest width unless given.
        bands: Exponents that count as Θ(1), by quantity.
        name: Of the task, for the record.
        **options: Choices of ``prescribe`` and options of the optimizer.

    Returns:
        The record; ``.passed``, ``.failures``, ``print`` and ``.plot()``.

    Raises:
        InputError: Fewer than two widths, or a step or seed count below 1.
        MismatchError: The model's shapes do not depend on its width.
        TaskError: A part of the task returns the wrong thing.
    """
    sizes = tuple(sorted(set(widths)))
    moments = tuple(sorted(set(steps)))
    _check_request(sizes, moments, seeds)
    with torch.random.fork_rng():
        narrow = _blueprint(build_model(task, sizes[0]))
        recipe = make_recipe(parametrization, task, base_width or sizes[0], optimizer, options)
        blueprints: dict[int, Blueprint] = {}
        expected: dict[tuple[str, str], float] = {}
        observed: dict[Key, list[list[float]]] = defaultdict(lambda: [[] for _ in range(seeds)])
        for width, seed in product(reversed(sizes), range(seeds)):  # the widest model fails first
            torch.manual_seed(seed)
            model = build_model(task, width)
            if width not in blueprints:
                blueprints[width] = _blueprint(model)
                check_grows(narrow, blueprints[sizes[-1]], sizes[0], sizes[-1])
                expected = expected_sizes(blueprints[width], narrow)
            built = recipe(model, width, lr)
            found = train_and_observe(model, built, task, seed=seed, steps=moments)
            for key, value in found.items():
                observed[key][seed].insert(0, value / expected.get(key[:2], 1.0))
    complete = {
        key: rows
        for key, rows in observed.items()
        if all(len(row) == len(sizes) for row in rows) and not _unmeasured(key, rows)
    }
    roles = _roles(narrow, blueprints[sizes[-1]], options)
    return CoordinateCheck(
        task=name,
        parametrization=recipe.label,
        optimizer=_optimizer_name(optimizer, recipe.builder is None),
        lr=lr,
        sizes=sizes,
        steps=moments,
        seeds=seeds,
        rows=judge(_in_model_order(complete, roles), sizes, roles, bands),
    )


def _check_request(sizes: Sequence[int], steps: Sequence[int], seeds: int) -> None:
    if len(sizes) < 2:
        raise InputError(f"widths={list(sizes)}: need at least 2 different widths to compare")
    if sizes[0] < 1 or not steps or steps[0] < 1 or seeds < 1:
        raise InputError(
            f"widths={list(sizes)}, steps={list(steps)}, seeds={seeds}: each must be 1 or more"
        )


def _blueprint(model: nn.Module) -> Blueprint:
    return read_blueprint(model, measure=False)


def _roles(narrow: Blueprint, wide: Blueprint, options: Mapping[str, Any]) -> dict[str, str]:
    """Role of each layer's weight, as far as shapes tell; only used to name causes."""
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


def _optimizer_name(optimizer: Optimizers, used: bool) -> str:
    if not used:
        return "user's"
    members = read_members(optimizer, {}).values()
    return "+".join(dict.fromkeys(member.cls.__name__ for member in members))


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
