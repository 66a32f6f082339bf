"""Who warns when E[score] is not 0: once a kind of distribution by default, or whenever asked."""

import warnings
from typing import Any

import torch
from torch.distributions import Distribution, Independent, TransformedDistribution

from thetaone.errors import EstimatorWarning
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import (
    ScoreCheck,
    affordable_samples,
    check_score,
    describe,
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
            the class, shape and dtype, where a thousand samples are cheap.
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
    held = trainable(distribution)
    dtype, device = (held[0].dtype, held[0].device.type) if held else (None, "cpu")
    return (
        *_classes(distribution),
        distribution.batch_shape,
        distribution.event_shape,
        dtype,
        device,
    )


def _classes(distribution: Distribution) -> list[type]:
    classes: list[type] = [type(distribution)]
    if isinstance(distribution, Independent | TransformedDistribution):
        classes += _classes(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        classes += [type(part) for part in distribution.transforms]
    return classes
