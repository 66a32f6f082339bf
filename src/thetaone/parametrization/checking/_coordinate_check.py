"""The coordinate check: small trainings at several widths or depths, one verdict a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from thetaone.errors import InputError
from thetaone.parametrization.applying import (
    Builder,
    Optimizers,
    make_parametrization,
    optimizer_name,
)
from thetaone.parametrization.checking._descent import MakeDescent
from thetaone.parametrization.checking._sizes import Sizes, build_models
from thetaone.parametrization.checking._study import Study
from thetaone.parametrization.checking.verdict import BANDS, Band
from thetaone.records import UNDECIDED, CoordinateCheck, LayerVerdict, Task, TrainingLoop

TELLING_SEEDS = 4  # from which on the spread of a row's seeds says how many would decide it


def coordinate_check(
    task: Task,
    *,
    widths: Sequence[int],
    lr: float,
    depths: Sequence[int] = (),
    optimizer: Optimizers = torch.optim.AdamW,
    parametrization: str | Builder = "mup",
    seeds: int | Sequence[int] = 3,
    max_seeds: int = 8,
    steps: Sequence[int] = (1, 3),
    base_width: int | None = None,
    bands: Mapping[str, Band] | None = None,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    descend: MakeDescent | None = None,
) -> CoordinateCheck:
    """Whether every layer's features move as much at the largest width as at the smallest.

    Trains a few steps at each width and seed, and fits the exponent in width of every quantity
    over its expected size: features and their change, weights, gains and biases, their updates,
    what the updates do, alignment, decay. All are 0 when the parametrization is right. A row that
    the seeds cannot decide gets more of them. With ``depths`` the same against depth, averaged over
    the blocks of a stack.

    Args:
        task: Gives ``model``, ``batches`` and ``loss``.
        widths: At least two [features]; one when depths are compared.
        lr: Learning rate at the base.
        depths: At least two, ``task.model(width, depth)`` builds them; with several widths, the
            depth of each, in their order [blocks].
        optimizer: Class, name or mapping, as ``prescribe`` takes it.
        parametrization: ``"mup"``, ``"sp"``, or ``(model, width, lr) -> optimizer``.
        seeds: Trainings at each size to begin with: how many [count], or their seeds; those that
            are added go on from the largest.
        max_seeds: Limit to which seeds are added while a row is undecided that they may decide
            [count].
        steps: Steps after which everything is compared with its first values [count].
        base_width: Where ``lr`` was tuned; the smallest width unless given.
        bands: Exponents that count as Θ(1), by quantity; ``BANDS`` unless given.
        name: Of the task, for the record.
        options: Choices of ``prescribe`` and options of the optimizer.
        descend: Makes what takes the steps of a model, from a training loop; None: backward and
            the optimizer's update. Of updates that follow the gradient (SGD), what clipping took
            is divided out, and judged in a row of its own.

    Returns:
        The record; ``.passed``, ``.failures``, ``.undecided``, ``print`` and ``.plot()``.

    Raises:
        InputError: Fewer than two sizes, a step or seed count below 1, an option of no optimizer.
        MismatchError: The model's shapes do not depend on its width.
        TaskError: A part of the task returns the wrong thing, or raises at every seed.
    """
    sizes = Sizes.of(task, widths, depths)
    moments = tuple(sorted(set(steps)))
    first = tuple(seeds) if isinstance(seeds, Sequence) else tuple(range(seeds))
    bands = BANDS if bands is None else bands
    _check_request(moments, first, bands)
    with torch.random.fork_rng():
        models = build_models(sizes)
        compared = {
            one: make_parametrization(
                one, task, base_width or sizes.widths[0], optimizer, options,
                depth=sizes.depths[0] if sizes.depths else None,
            )
            for one in dict.fromkeys(("mup", parametrization))
        }  # fmt: skip
        judged = compared[parametrization]
        study = Study(
            sizes, models, compared["mup"], judged, lr=lr, steps=moments, bands=bands,
            first=first, descend=descend,
        )  # fmt: skip
        del models
        study.train(len(first))
        rows = study.rows()
        while study.seeds < max_seeds and _worth_more(rows, study.seeds, max_seeds):
            study.train(min(max_seeds, study.seeds + max(1, study.seeds // 2)))
            rows = study.rows()
    return CoordinateCheck(
        task=name,
        parametrization=judged.label,
        optimizer="user's" if callable(parametrization) else optimizer_name(optimizer),
        lr=lr,
        axis=sizes.axis,
        sizes=sizes.values,
        depths=sizes.depths if len(sizes.widths) > 1 else (),
        steps=moments,
        seeds=study.trained,
        loop=TrainingLoop() if descend is None else descend.loop,
        rows=rows,
        notes=study.notes(),
    )


def _worth_more(rows: Sequence[LayerVerdict], seeds: int, max_seeds: int) -> bool:
    """Whether more seeds, up to the limit, may decide a row.

    Few seeds do not tell a row's spread; from ``TELLING_SEEDS`` on it says how many would do.
    """
    undecided = [row for row in rows if row.answer == UNDECIDED]
    if seeds < TELLING_SEEDS:
        return bool(undecided)
    return any(0 < row.seeds_needed <= max_seeds for row in undecided)


def _check_request(steps: Sequence[int], seeds: Sequence[int], bands: Mapping[str, Band]) -> None:
    if not steps or steps[0] < 1:
        raise InputError(f"steps={list(steps)}: each must be 1 or more")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seeds={list(seeds)}: need one seed or more, each once, from 0 on")
    unknown = bands.keys() - BANDS.keys()
    if unknown:
        raise InputError(
            f"bands= names {sorted(unknown)[0]!r}: the quantities are {', '.join(BANDS)}"
        )
