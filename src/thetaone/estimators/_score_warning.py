"""Who warns when E[score] is not 0: each kind of distribution is looked at once, or whenever asked.

A kind is a class with shape, dtype, and the order of magnitude of all numbers that it holds: a
concentration that sinks to 0.02 in a training, a probability that reaches 0, or a temperature that
anneals is looked at when it gets there. What was found is said again at every call: how often it is
shown is for Python's warning filters to decide.
"""

from collections.abc import Sequence
from functools import partial
from math import floor, inf, log, prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TransformedDistribution

from thetaone.estimators._protocol import Estimator
from thetaone.estimators._user_warning import warn_user
from thetaone.estimators.distributions import (
    HostChecks,
    ScoreCheck,
    affordable_samples,
    check_score,
    describe,
    elementary,
    held_numbers,
    trainable,
)

CHEAP, CHEAP_ELEMENTS, CHEAP_MOST = (
    2**13,
    2**20,
    2**21,
)  # samples, numbers in them, at the very most
LEAST = 64  # samples, 2 a block; in a large batch the entries are pooled [count]
THOROUGH, THOROUGH_ELEMENTS = 2**17, 2**22
_SEEN: dict[tuple[Any, ...], str] = {}  # what is wrong with each kind that was met; empty: nothing


def warn_of_score(
    estimator: Estimator, distribution: Distribution, checks: HostChecks, *, check: bool | None
) -> None:
    """Have a warning given, when the checks are settled, that the mean of a score is not 0.

    Args:
        estimator: Only those that use the score are concerned.
        distribution: pθ.
        checks: What the magnitudes of its parameters wait in to be read.
        check: True: thoroughly; False: never; None: cheaply, the first time that this process meets
            the kind; batches of more than 32 768 numbers are not looked at.
    """
    if check is False or not estimator.uses_score or not torch.is_grad_enabled():
        return
    if check:
        checks.add((), lambda _: _say(_fault(distribution, THOROUGH, THOROUGH_ELEMENTS)))
        return
    if type(elementary(distribution)) is Normal:  # location and scale: no regime of its own
        _meet(distribution, (), ())
        return
    tensors, plain = held_numbers(distribution)
    numbers = [number for tensor in tensors for number in _magnitudes(tensor)]
    checks.add(numbers, partial(_meet, distribution, plain))


def _meet(distribution: Distribution, plain: Sequence[float], magnitudes: Sequence[float]) -> None:
    """Look at a distribution when it is the first of its kind, and say what was found."""
    kind = _kind(distribution, plain, magnitudes)
    if kind not in _SEEN:
        shape = (*distribution.batch_shape, *distribution.event_shape)
        cheap = LEAST * prod(shape) <= CHEAP_MOST
        _SEEN[kind] = _fault(distribution, CHEAP, CHEAP_ELEMENTS) if cheap else ""
    _say(_SEEN[kind])


def _fault(distribution: Distribution, samples: int, elements: int) -> str:
    """What is wrong with the score, in words; empty when nothing is."""
    n_samples = max(LEAST, affordable_samples(distribution, samples, elements))
    verdict = check_score(distribution, n_samples=n_samples)
    return "" if verdict.passed else advice(verdict, distribution)


def _say(fault: str) -> None:
    if fault:
        warn_user(fault)


def advice(verdict: ScoreCheck, distribution: Distribution) -> str:
    """What is wrong, and what to do."""
    return (
        f"{verdict.reason} ({describe(distribution)}). Gradients from the score are wrong here: "
        "use float64, another parametrization (logits, or a transform inside f), or Pathwise()"
    )


def _kind(
    distribution: Distribution, plain: Sequence[float], magnitudes: Sequence[float]
) -> tuple[Any, ...]:
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
    fixed = (_power(abs(number)) for number in plain)
    return (*_classes(distribution), *shapes, *place, *powers, *fixed)


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
