"""Features that a prescription does not expect to be Θ(1), or not at once."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from thetaone.parametrization._names import place
from thetaone.parametrization.checking._observe import (
    decomposed,
    moved_size,
    pooled,
    seed_forward,
)
from thetaone.parametrization.checking._recorder import ROOT, Recorder
from thetaone.parametrization.checking._task_calls import first_batch, scalar_loss
from thetaone.parametrization.checking.verdict import factor_exponents
from thetaone.parametrization.reading import trained_parameters
from thetaone.records import Prescription, Task

_LOGITS = " logits"  # as the recorder names what goes into a softmax


def folded_features(
    model: nn.Module,
    task: Task,
    smallest: Prescription,
    largest: Prescription,
    *,
    seed: int,
    growth: float,
    stacks: frozenset[str],
) -> dict[str, list[float]]:
    """Exponents of the folds by label of the features between a fold and what it makes up for.

    They may be anything between 1 and the fold.

    Args:
        model: Of any size; its parameters are as before afterwards.
        task: Gives the batch and the loss.
        smallest: Prescription of the smallest model.
        largest: Of the largest.
        seed: Of the batch and the passes.
        growth: Its size over the smallest's, > 1.
        stacks: Places of the containers whose blocks differ in number.
    """
    by_exponent: dict[float, list[str]] = defaultdict(list)
    for name, exponent in factor_exponents("fold", smallest, largest, growth).items():
        by_exponent[exponent].append(name)
    folded: dict[str, list[float]] = defaultdict(list)
    for exponent, names in by_exponent.items():
        labels = linear_features(model, task, seed=seed, groups=_groups(names))
        for spot in {place(label, stacks) for label in labels}:
            folded[spot].append(exponent)
    return folded


def small_logits(
    labels: Iterable[str],
    smallest: Prescription,
    largest: Prescription,
    *,
    growth: float,
    stacks: frozenset[str],
) -> dict[str, float]:
    """Exponents of the first changes of logits that are sums over more features, by label.

    Args:
        labels: Of all features.
        smallest: Prescription of the smallest model.
        largest: Of the largest.
        growth: Its size over the smallest's, > 1.
        stacks: Places of the containers whose blocks differ in number.
    """
    exponents: dict[str, float] = {}
    for where in smallest.early_logits | largest.early_logits:
        change = largest.early_logits.get(where, 1.0) / smallest.early_logits.get(where, 1.0)
        exponents[place(where or ROOT, stacks)] = math.log(change) / math.log(growth)
    small = {
        label: [e for where, e in exponents.items() if _in_one_module(label, where)]
        for label in labels
        if label.endswith(_LOGITS)
    }
    return {label: min(each) for label, each in small.items() if each}


def _in_one_module(label: str, where: str) -> bool:
    """Whether a softmax and a sum run in one module, or one of them in a part of the other's."""
    softmax = label.removesuffix(_LOGITS) + "."
    return where == ROOT or softmax.startswith(f"{where}.") or f"{where}.".startswith(softmax)


def _groups(names: Sequence[str]) -> list[Sequence[str]]:
    """All parameters together, and those of each module: a fold may lie behind another one."""
    modules: dict[str, list[str]] = defaultdict(list)
    for name in names:
        modules[name.rpartition(".")[0]].append(name)
    return [names, *modules.values()] if len(modules) > 1 else [names]


@torch.no_grad()
def linear_features(
    model: nn.Module, task: Task, *, seed: int, groups: Sequence[Sequence[str]]
) -> frozenset[str]:
    """The features that double when a group of parameters doubles: those behind a fold.

    Of a layer that is called several times the features of one call will do.

    Args:
        model: Its parameters are as before afterwards.
        task: Gives the batch and the loss.
        seed: Of the batch and the passes.
        groups: Names of parameters that carry a factor of the forward pass.
    """
    batch, parameters = first_batch(task, seed), trained_parameters(model)

    def features() -> Mapping[str, Sequence[Tensor]]:
        seed_forward(seed)
        with decomposed(model), Recorder(model, {}) as recorder:  # no weight is compared
            scalar_loss(task, model, batch)
        return recorder.record.features

    before, linear = features(), set[str]()
    for names in groups:
        for name in names:
            parameters[name].mul_(2)
        try:
            after = features()
        finally:
            for name in names:
                parameters[name].div_(2)
        linear |= {
            label
            for label, tensors in before.items()
            if any(map(_is_double, after.get(label, ()), tensors))
        }
    return frozenset(linear)


def _is_double(after: Tensor, before: Tensor) -> bool:
    if after.shape != before.shape:
        return False
    return moved_size([2 * before], [after]) <= 1e-3 * pooled([after])
