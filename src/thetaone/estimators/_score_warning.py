"""Who warns when E[score] is not 0: once a kind of distribution by default, or whenever asked.

A kind is a class with shape, dtype, and the order of magnitude of its parameters: a concentration
that sinks to 0.02 in a training, or a probability that reaches 0, is looked at when it gets there.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from math import floor, inf, log
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution

from thetaone.errors import EstimatorWarning
from thetaone.estimators._protocol import Estimator
from thetaone.estimators.distributions import (
    HostChecks,
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


def warn_of_score(
    estimator: Estimator, distribution: Distribution, checks: HostChecks, *, check: bool | None
) -> None:
    """Have a warning given, when the checks are settled, that the mean of a score is not 0.

    Args:
        estimator: Only those that use the score are concerned.
        distribution: pθ.
        checks: What the magnitudes of its parameters wait in to be read.
        check: True: thoroughly; False: never; None: the first time that this process meets the
            kind, where a thousand samples are cheap.
    """
    if check is False or not estimator.uses_score or not torch.is_grad_enabled():
        return
    if check:
        checks.add((), lambda _: _warn(distribution, THOROUGH, THOROUGH_ELEMENTS, least=0))
        return
    if type(elementary(distribution)) is Normal:  # location and scale: no regime of its own
        _meet(distribution, ())
        return
    numbers = [number for tensor in trainable(distribution) for number in _magnitudes(tensor)]
    checks.add(numbers, partial(_meet, distribution))


def _meet(distribution: Distribution, magnitudes: Sequence[float]) -> None:
    """Look at a distribution when it is the first of its kind."""
    kind = _kind(distribution, magnitudes)
    if kind not in _SEEN:
        _SEEN.add(kind)
        _warn(distribution, CHEAP, CHEAP_ELEMENTS, least=CHEAP_LEAST)


def _warn(distribution: Distribution, samples: int, elements: int, *, least: int) -> None:
    n_samples = affordable_samples(distribution, samples, elements)
    if n_samples < least:
        return
    verdict = check_score(distribution, n_samples=max(64, n_samples))
    if not verdict.passed:
        message = advice(verdict, distribution)
        warnings.warn(message, EstimatorWarning, stacklevel=_levels_to_user())


def _levels_to_user() -> int:
    """Frames up from the caller to the first outside this package [count]."""
    frame, levels = sys._getframe(1), 1
    # code that was compiled from text may have globals without a name
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("thetaone."):
        frame, levels = frame.f_back, levels + 1
    return levels


def advice(verdict: ScoreCheck, distribution: Distribution) -> str:
    """What is wrong, and what to do."""
    return (
        f"{verdict.reason} ({describe(distribution)}). Gradients from the score are wrong here: "
        "use float64, another parametrization (logits, or a transform inside f), or Pathwise()"
    )


def _kind(distribution: Distribution, magnitudes: Sequence[float]) -> tuple[Any, ...]:
    """Class, shapes, dtype, device; for each three magnitudes the powers of 4 they lie between.

    For entries of both signs only the upper end: near 0 nothing special happens to a logit.
    """
    base = elementary(distribution)
    held = base.loc if isinstance(base, Normal) else next(iter(trainable(distribution)), None)
    place = () if held is None else (held.dtype, held.device.type)
    powers: list[tuple[int, int, bool]] = []
    for low, high, on_edge in zip(*(magnitudes[i::3] for i in range(3)), strict=True):
        top = max(abs(low), abs(high))
        powers.append((_power(low if low > 0 else top), _power(top), bool(on_edge)))
    shapes = (distribution.batch_shape, distribution.event_shape)
    return (*_classes(distribution), *shapes, *place, *powers)


def _magnitudes(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least and greatest entry, and whether one is exactly 0 or 1."""
    entries = tensor.detach() if tensor.numel() else tensor.new_ones(1)
    low, high = torch.aminmax(entries)
    return low, high, ((entries == 0) | (entries == 1)).any()


def _power(size: float) -> int:
    return floor(log(size, 4)) if 0 < size < inf else -1000


def _classes(distribution: Distribution) -> list[type]:
    classes: list[type] = [type(distribution)]
    if isinstance(distribution, Independent | TransformedDistribution):
        classes += _classes(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        classes += [type(part) for part in distribution.transforms]
    return classes
