"""Memory is O(samples × dimensions) for every estimator, counted in tensors of that size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as D

import thetaone as t1
from thetaone.estimators import Estimator, LeaveOneOut, Pathwise
from thetaone.estimators._integrand import Integrand
from thetaone.estimators.distributions import log_ratio
from thetaone.estimators.judging._catalogue import CATALOGUE

# tensors of samples × dimensions alive at once, f's own square included
MOST = {"score": 2.2, "leave-one-out": 2.2, "pathwise": 3.2}
MOST_OF_ANY = 30.0  # RELAX: a control variate with 10 hidden units, twice, with its own gradient


def square(x: Tensor) -> Tensor:
    return (x * x).sum(-1)


def families() -> tuple[Callable[[Tensor], D.Distribution], ...]:
    return (
        lambda loc: D.Independent(D.Normal(loc, 1.0), 1),
        lambda logits: D.Independent(D.Bernoulli(logits=logits), 1),
    )


def peak_tensors(
    estimator: Estimator, make: Callable[[Tensor], D.Distribution], n: int, d: int,
    max_bytes: str | None = None,
) -> float:  # fmt: skip
    """Peak bytes of value and backward over the bytes of n × d float32."""
    parameter = torch.zeros(d, requires_grad=True)
    with t1.TrainingMemory() as memory:
        t1.expectation(
            square, make(parameter), estimator=estimator, n_samples=n, max_bytes=max_bytes
        ).backward()
    return memory.peak_bytes / (4 * n * d)


def is_linear(factory: Callable[[], Estimator], make: Callable[[Tensor], D.Distribution]) -> bool:
    small = peak_tensors(factory(), make, 1000, 10)
    more_samples = peak_tensors(factory(), make, 4000, 10)
    more_dimensions = peak_tensors(factory(), make, 1000, 40)
    return max(more_samples, more_dimensions) <= 1.05 * small


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "enumeration"])
@pytest.mark.float32
def test_linear_in_samples_and_in_dimensions(name: str) -> None:
    tested = 0
    for make in families():
        if CATALOGUE[name]().refusal(make(torch.zeros(4, requires_grad=True))):
            continue
        tested += 1
        assert is_linear(CATALOGUE[name], make)
        assert peak_tensors(CATALOGUE[name](), make, 1000, 40) <= MOST_OF_ANY
    assert tested


@pytest.mark.parametrize("name", list(MOST))
@pytest.mark.float32
def test_few_tensors_for_a_normal(name: str) -> None:
    peak_tensors(CATALOGUE[name](), families()[0], 1000, 40)  # the score is checked, once a kind
    assert peak_tensors(CATALOGUE[name](), families()[0], 1000, 40) <= MOST[name]


@pytest.mark.float32
def test_a_byte_limit_bounds_what_f_keeps() -> None:
    whole = peak_tensors(Pathwise(), families()[0], 10_000, 40)
    chunked = peak_tensors(Pathwise(), families()[0], 10_000, 40, max_bytes="40KiB")
    # what is left: the samples and their gradient
    assert chunked < 2.1 < 3.0 < whole


class Pairwise(LeaveOneOut):
    """All differences of two samples at once: the same estimate, samples² of memory."""

    def surrogate(self, f: Integrand, distribution: D.Distribution, draws: Tensor) -> Tensor:
        values = f(draws)
        advantage = (values[:, None] - values).detach().sum(1) / (values.shape[0] - 1)
        return values + advantage * log_ratio(distribution, draws, f.lead(values))


def test_a_quadratic_estimator_would_be_seen() -> None:
    assert is_linear(LeaveOneOut, families()[0])
    assert not is_linear(Pairwise, families()[0])
