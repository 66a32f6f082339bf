"""Who warns when E[score] is not 0: once a kind of distribution by default, or whenever asked.

A kind is a class with shape, dtype, and the order of magnitude of its parameters: a concentration
that sinks to 0.02 in a training, or a probability that reaches 0, is looked at when it gets there.
"""

import warnings
from math import floor, inf, log
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution

from thetaone.errors import EstimatorWarning
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import (
    ScoreCheck,
    affordable_samples,
    check_score,
    describe,
    elementary,
    trainable,
)

CHEAP, CHEAP_ELEMENTS, CHEAP_LEAST = 2**13, 2**20, 2**10  # samples, numbers in them, fewest samples
THOROUGH, THOROUGH_ELEMENTS = 2**17, 2**22
_SEEN: set[tuple[Any, ...]] = set()  # kinds of distributions that were looked at in this process


def warn_of_score(estimator: Estimator, distribution: Distribution, *, check: bool | None) -> None:
    """Warn when an estimator relies on a score whose mean is not 0.

    Args:
        estimator: Only those that use the score are concerned.
        distribution: pθ.
        check: True: now and thoroughly; False: never; None: the first time that this process meets
            the kind, where a thousand samples are cheap.
    """
    if check is False or not estimator.uses_score or not torch.is_grad_enabled():
        return
    if check is None:
        kind = _kind(distribution)
        if kind in _SEEN:
            return
        _SEEN.add(kind)
        n_samples = affordable_samples(distribution, CHEAP, CHEAP_ELEMENTS)
        if n_samples < CHEAP_LEAST:
            return
    else:
        n_samples = max(64, affordable_samples(distribution, THOROUGH, THOROUGH_ELEMENTS))
    verdict = check_score(distribution, n_samples=n_samples)
    if not verdict.passed:
        warnings.warn(advice(verdict, distribution), EstimatorWarning, stacklevel=4)


def advice(verdict: ScoreCheck, distribution: Distribution) -> str:
    """What is wrong, and what to do."""
    return (
        f"{verdict.reason} ({describe(distribution)}). Gradients from the score are wrong here: "
        "use float64, another parametrization (logits, or a transform inside f), or Pathwise()"
    )


def _kind(distribution: Distribution) -> tuple[Any, ...]:
    shapes = (distribution.batch_shape, distribution.event_shape)
    held = trainable(distribution)
    if not held:
        return (*_classes(distribution), *shapes)
    dtype, device = held[0].dtype, held[0].device.type
    if type(elementary(distribution)) is Normal:  # location and scale: no regime of its own
        return (Normal, *shapes, dtype, device)
    return (*_classes(distribution), *shapes, dtype, device, *map(_magnitude, held))


def _magnitude(tensor: Tensor) -> tuple[int, int, bool]:
    """Powers of 4 that the entries lie between, and whether one is exactly 0 or 1.

    For entries of both signs only the upper end: near 0 nothing special happens to a logit.
    """
    entries = tensor.detach()
    low, high = (float(end) for end in torch.aminmax(entries)) if entries.numel() else (1.0, 1.0)
    on_edge = bool(((entries == 0) | (entries == 1)).any())
    top = max(abs(low), abs(high))
    bottom = low if low > 0 else top
    return _power(bottom), _power(top), on_edge


def _power(size: float) -> int:
    return floor(log(size, 4)) if 0 < size < inf else -1000


def _classes(distribution: Distribution) -> list[type]:
    classes: list[type] = [type(distribution)]
    if isinstance(distribution, Independent | TransformedDistribution):
        classes += _classes(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        classes += [type(part) for part in distribution.transforms]
    return classes
