"""With every possible draw injected, the mean is the gradient to 1e-9: no Monte Carlo."""

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as D

import thetaone as t1
from thetaone.errors import EstimatorError
from thetaone.estimators import (
    ARM,
    REBAR,
    RELAX,
    VIMCO,
    DisARM,
    Enumeration,
    Estimator,
    GumbelSoftmax,
    LeaveOneOut,
    ScoreFunction,
    StraightThrough,
)
from thetaone.estimators._integrand import Integrand

THETAS = [0.0, 1.0, -2.0, 0.7]


def toy(b: Tensor) -> Tensor:
    return (b - 0.499) ** 2


def truth(theta: float) -> float:
    p = 1 / (1 + np.exp(-theta))
    return p * (1 - p) * 0.002


def rows_gradient(
    estimator: Estimator, f: Callable[[Tensor], Tensor], logits: Tensor, draws: Any
) -> Tensor:
    """Gradient of each row by the logits, ``[rows, *logits.shape]``, from given draws."""
    q = D.Bernoulli(logits=logits)
    rows = estimator.surrogate(Integrand(f, q), q, draws)
    weights = torch.eye(rows.shape[0], dtype=rows.dtype)
    (gradient,) = torch.autograd.grad(rows, logits, weights, is_grads_batched=True)
    return gradient


def gauss(edges: list[float], order: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre nodes and weights on (0, 1), exact between the edges."""
    x, w = np.polynomial.legendre.leggauss(order)
    nodes, weights = [], []
    cuts = sorted({0.0, 1.0, *edges})
    for low, high in pairwise(cuts):
        nodes.append((high - low) / 2 * x + (high + low) / 2)
        weights.append((high - low) / 2 * w)
    return torch.tensor(np.concatenate(nodes)), torch.tensor(np.concatenate(weights))


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("k", [2, 3, 4])
def test_leave_one_out_over_all_tuples(theta: float, k: int) -> None:
    logits = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(logits.detach())
    total = 0.0
    for bits in product([0.0, 1.0], repeat=k):
        b = torch.tensor(bits, dtype=torch.float64)
        probability = torch.where(b > 0, p, 1 - p).prod()
        estimate = rows_gradient(LeaveOneOut(), toy, logits, b).mean()
        total += float(probability * estimate)
    assert total == pytest.approx(truth(theta), abs=1e-9)


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("estimator", [ARM(), DisARM()], ids=lambda e: e.name)
def test_arm_and_disarm_over_all_noise(theta: float, estimator: Estimator) -> None:
    logits = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    p = float(torch.sigmoid(logits.detach()))
    u, weight = gauss([p, 1 - p])
    gradient = rows_gradient(estimator, toy, logits, u)
    assert float((weight * gradient).sum()) == pytest.approx(truth(theta), abs=1e-9)


@pytest.mark.parametrize("estimator", [ARM(), DisARM()], ids=lambda e: e.name)
def test_pairs_in_two_dimensions(estimator: Estimator) -> None:
    logits = torch.tensor([0.4, -1.1], dtype=torch.float64, requires_grad=True)

    def f(b: Tensor) -> Tensor:
        return (b[:, 0] + 2 * b[:, 1] - 0.5) ** 2 + 3 * b[:, 0] * b[:, 1]

    p = torch.sigmoid(logits.detach())
    grids = [gauss([float(q), 1 - float(q)], order=4) for q in p]
    u = torch.cartesian_prod(grids[0][0], grids[1][0])
    weight = torch.outer(grids[0][1], grids[1][1]).flatten()
    gradient = (weight[:, None] * rows_gradient(estimator, f, logits, u)).sum(0)
    e = t1.expectation(f, D.Bernoulli(logits=logits), estimator=Enumeration())
    (exact,) = torch.autograd.grad(e.value, logits)
    torch.testing.assert_close(gradient, exact, atol=1e-9, rtol=0)
    assert e.stderr.item() == 0


def controls() -> dict[str, Estimator]:
    """Any control variate at all: f relaxed, a polynomial, a network with random weights."""
    network = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    network = network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    return {
        "rebar": REBAR(temperature=0.8),
        "rebar-eta": REBAR(temperature=2.0, eta=-3.0),
        "relax-network": RELAX(network, lr=0),
        "relax-default": RELAX(lr=0),
    }


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("name", list(controls()))
def test_relaxed_controls_over_all_noise(theta: float, name: str) -> None:
    logits = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    p = float(torch.sigmoid(logits.detach()))
    # the logistic tails at 0 and 1 are singular: nodes are bunched there
    u, weight_u = bunched([0.0, 1 - p, 1.0])
    v, weight_v = bunched([0.0, 1.0])
    grid_u, grid_v = (part.flatten() for part in torch.meshgrid(u, v, indexing="ij"))
    weight = torch.outer(weight_u, weight_v).flatten()
    estimator = controls()[name]
    q = D.Bernoulli(logits=logits)
    rows = estimator.surrogate(Integrand(toy, q), q, (grid_u, grid_v))
    (gradient,) = torch.autograd.grad((weight * rows).sum(), logits)
    assert float(weight.sum()) == pytest.approx(1, abs=1e-12)
    assert float(gradient) == pytest.approx(truth(theta), abs=1e-9)


def bunched(edges: list[float]) -> tuple[Tensor, Tensor]:
    """Double-exponential (tanh-sinh) nodes and weights on each piece between the edges."""
    s = torch.linspace(-2.9, 2.9, 59, dtype=torch.float64)
    x = 0.5 * (1 + torch.tanh(torch.pi / 2 * torch.sinh(s)))
    dx = 0.25 * torch.pi * torch.cosh(s) / torch.cosh(torch.pi / 2 * torch.sinh(s)) ** 2
    w = dx * (s[1] - s[0])
    pieces = list(pairwise(edges))
    nodes = torch.cat([low + (high - low) * x for low, high in pieces])
    weights = torch.cat([(high - low) * w for low, high in pieces])
    return nodes, weights


def test_rebar_without_its_last_term_is_not_exact() -> None:
    # the test above can fail: drop ∇c(z̃) and the bias is fifty times the gradient
    logits = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    p = float(torch.sigmoid(logits.detach()))
    u, weight_u = bunched([0.0, 1 - p, 1.0])
    v, weight_v = bunched([0.0, 1.0])
    grid_u, grid_v = (part.flatten() for part in torch.meshgrid(u, v, indexing="ij"))
    weight = torch.outer(weight_u, weight_v).flatten()
    from thetaone.estimators.methods._bernoulli import relaxed, relaxed_given

    def c(z: Tensor) -> Tensor:
        return toy((z / 0.5).sigmoid())

    z, b = relaxed(logits, grid_u)
    conditional = relaxed_given(logits, b, grid_v).detach()
    log_p = D.Bernoulli(logits=logits).log_prob(b)
    rows = (toy(b) - c(conditional)) * log_p + c(z)
    (gradient,) = torch.autograd.grad((weight * rows).sum(), logits)
    assert float(gradient) == pytest.approx(0.0206, abs=2e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_vimco_over_all_tuples(k: int) -> None:
    logits = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def f(b: Tensor) -> Tensor:
        return 1.3 * b - 0.2 * b**2

    p = torch.sigmoid(logits)
    bound = estimate = torch.zeros((), dtype=torch.float64)
    for bits in product([0.0, 1.0], repeat=k):
        b = torch.tensor(bits, dtype=torch.float64)
        probability = torch.where(b > 0, p, 1 - p).prod()
        bound = bound + probability * (f(b).logsumexp(0) - np.log(k))
        rows = rows_gradient(VIMCO(k), f, logits, b)
        estimate = estimate + probability.detach() * rows.sum()
    (exact,) = torch.autograd.grad(bound, logits)
    assert float(estimate) == pytest.approx(float(exact), abs=1e-9)


@pytest.mark.parametrize("k", [2, 3])
def test_vimco_with_weights_of_zero_over_all_tuples_that_have_another(k: int) -> None:
    logits = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def f(x: Tensor) -> Tensor:  # two coins: log w is −inf for (0, 0)
        total = x.sum(-1)
        return torch.where(total > 0, 1.3 * total - logits * x[..., 0], -torch.inf)

    p = torch.sigmoid(logits)
    bound = estimate = torch.zeros((), dtype=torch.float64)
    for bits in product([0.0, 1.0], repeat=2 * k):
        x = torch.tensor(bits, dtype=torch.float64).view(k, 2)
        if not x.any():  # its L̂ is −inf: counted as 0 here
            continue
        probability = torch.where(x > 0, p, 1 - p).prod()
        bound = bound + probability * (f(x).logsumexp(0) - np.log(k))
        q = D.Independent(D.Bernoulli(logits=logits.expand(2)), 1)
        row = VIMCO(k).surrogate(Integrand(f, q), q, x)
        (gradient,) = torch.autograd.grad(row.sum(), logits)
        estimate = estimate + probability.detach() * gradient
    (exact,) = torch.autograd.grad(bound, logits)
    assert float(estimate) == pytest.approx(float(exact), abs=1e-9)


def test_vimco_refuses_a_group_without_weight() -> None:
    logits = torch.zeros((), requires_grad=True)
    options: dict[str, Any] = {"n_samples": 64, "generator": torch.Generator().manual_seed(0)}
    with pytest.raises(EstimatorError, match=r"all weights are 0 in \d+ of 64 groups"):
        t1.expectation(torch.log, D.Bernoulli(logits=logits), estimator=VIMCO(2), **options)
    with pytest.raises(EstimatorError, match="f returned NaN or inf for"):
        t1.expectation(
            lambda x: -x.log(), D.Bernoulli(logits=logits), estimator=VIMCO(2), **options
        )


@pytest.mark.parametrize(
    ("theta", "estimator", "expected"),
    [
        (0.0, GumbelSoftmax(1.0), 1 / 3000),
        (0.0, GumbelSoftmax(0.5), 4.2920e-4),
        (0.0, GumbelSoftmax(0.1), 4.9598e-4),
        (1.0, GumbelSoftmax(1.0), 0.029930),
        (1.0, GumbelSoftmax(0.5), 0.030157),
        (1.0, GumbelSoftmax(0.1), 0.009280),
        (1.0, GumbelSoftmax(1.0, hard=True), 0.053450),
        (1.0, GumbelSoftmax(0.5, hard=True), 0.045639),
        (1.0, GumbelSoftmax(0.1, hard=True), 0.012770),
        (-1.0, GumbelSoftmax(1.0), -0.02933),  # the sign is wrong
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_gumbel_softmax_is_as_biased_as_its_quadrature(
    theta: float, estimator: Estimator, expected: float
) -> None:
    logits = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    p = float(torch.sigmoid(logits.detach()))
    u, weight = bunched([0.0, 1 - p, 1.0])
    found = float((weight * rows_gradient(estimator, toy, logits, u)).sum())
    assert found == pytest.approx(expected, rel=2e-4)
    assert abs(found - truth(theta)) > 4e-6  # against 5e-4 or less


@pytest.mark.parametrize(("theta", "expected"), [(0.0, 5e-4), (1.0, 0.091251), (-1.0, -0.090465)])
def test_straight_through_is_as_biased_as_its_closed_form(theta: float, expected: float) -> None:
    logits = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    p = float(torch.sigmoid(logits.detach()))
    both = torch.tensor([0.0, 1.0], dtype=torch.float64)
    weight = torch.tensor([1 - p, p], dtype=torch.float64)
    found = float((weight * rows_gradient(StraightThrough(), toy, logits, both)).sum())
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(p * (1 - p) * (2 * p - 0.998), abs=1e-15)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_enumeration_is_exact_on_the_edges(p: float) -> None:
    # E b = p and E k = 3p, E k² = 3p(1 − p) + 9p²: derivatives 1, 3 and 3 + 12p, everywhere
    for make, f, truth in (
        (D.Bernoulli, lambda x: x, 1.0),
        (lambda q: D.Binomial(3, q), lambda x: x, 3.0),
        (lambda q: D.Binomial(3, q), lambda x: x**2, 3 + 12 * p),
    ):
        q = torch.tensor(p, dtype=torch.float64, requires_grad=True)
        e = t1.expectation(f, make(q), estimator=Enumeration())
        e.backward()
        assert q.grad is not None
        assert q.grad.item() == pytest.approx(truth, abs=1e-12)


def test_enumeration_at_a_class_of_probability_0() -> None:
    # by weights w, p = w/Σw: ∂F/∂w_k = (f_k − F)/Σw
    table = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    w = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    for make, f in (
        (D.Categorical, lambda k: table[k]),
        (D.OneHotCategorical, lambda x: x @ table),
    ):
        (gradient,) = torch.autograd.grad(
            t1.expectation(f, make(w), estimator=Enumeration()).value, w
        )
        torch.testing.assert_close(gradient, table - 1.5, atol=1e-12, rtol=0)


def test_a_batch_of_categoricals_is_enumerated_row_by_row() -> None:
    logits = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    table = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    e = t1.expectation(lambda k: table[k], D.Categorical(logits=logits))
    assert (e.estimator, e.evaluations) == ("Enumeration", 5)  # 3 outcomes, not 3^40, and 2 probes
    (gradient,) = torch.autograd.grad(e.value.sum(), logits)
    p = logits.detach().softmax(-1)
    torch.testing.assert_close(gradient, p * (table - (p @ table)[:, None]), atol=1e-12, rtol=0)


def test_an_optimal_baseline_where_tensors_are_tied() -> None:
    # ContinuousBernoulli keeps probs and, once asked for, logits; d/dp E cos x by a fine grid
    x = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    w = torch.softmax(x * torch.tensor(0.3, dtype=torch.float64).logit(), 0)
    truth = ((w * x.cos() * x).sum() - (w * x.cos()).sum() * (w * x).sum()).item() / 0.21
    p = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    q = D.ContinuousBernoulli(p)
    assert q.logits.requires_grad
    e = t1.expectation(
        torch.cos, q, estimator=ScoreFunction("optimal"), n_samples=200_000,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    e.backward()
    assert p.grad is not None
    assert p.grad.item() == pytest.approx(truth, abs=0.01)
