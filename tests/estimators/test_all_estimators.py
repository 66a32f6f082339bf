"""Guards and properties that every registered estimator shares."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as D

import thetaone as t1
from thetaone.errors import EstimatorError, InputError
from thetaone.estimators import (
    ARM,
    REBAR,
    RELAX,
    VIMCO,
    Antithetic,
    ControlVariate,
    DisARM,
    Enumeration,
    EvolutionStrategies,
    GumbelSoftmax,
    LeaveOneOut,
    MeasureValued,
    Pathwise,
    StraightThrough,
    quadratic_location,
    tucker,
)
from thetaone.estimators.judging._catalogue import CATALOGUE


def applicable(name: str) -> tuple[Callable[[Tensor], Tensor], D.Distribution, Tensor] | None:
    for problem in (tucker(0.5, t=0.2), quadratic_location(2)):
        (parameter,) = (value.clone().requires_grad_() for value in problem.params.values())
        distribution = problem.make(parameter)
        if not CATALOGUE[name]().refusal(distribution):
            return problem.f, distribution, parameter
    return None


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_second_derivatives_are_defined_or_refused(name: str) -> None:
    found = applicable(name)
    assert found is not None
    f, distribution, parameter = found
    estimator = CATALOGUE[name]()
    e = t1.expectation(f, distribution, estimator=estimator, n_samples=8)
    (first,) = torch.autograd.grad(e.value, parameter, create_graph=True)
    if estimator.higher_order:
        torch.autograd.grad(first.sum(), parameter, allow_unused=True)
        return
    with pytest.raises(EstimatorError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), parameter)


@pytest.mark.parametrize("name", list(CATALOGUE))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reproducible_in_both_precisions(name: str, dtype: torch.dtype) -> None:
    found = applicable(name)
    assert found is not None
    problem = tucker(0.5, t=0.2) if found[2].numel() == 1 else quadratic_location(2)
    gradients = []
    for _ in range(2):
        (parameter,) = (v.to(dtype).requires_grad_() for v in problem.params.values())
        e = t1.expectation(
            problem.f, problem.make(parameter), estimator=CATALOGUE[name](), n_samples=16,
            generator=torch.Generator().manual_seed(4),
        )  # fmt: skip
        e.backward()
        gradients.append(parameter.grad)
    assert gradients[0].dtype == dtype
    assert torch.equal(gradients[0], gradients[1])


def test_relax_learns_to_reduce_its_variance() -> None:
    problem = tucker(0.0, t=0.45)
    (logits,) = (value.clone().requires_grad_() for value in problem.params.values())
    g = torch.Generator().manual_seed(0)

    def variance(estimator: RELAX) -> float:
        rows = t1.gradient_samples(
            problem.f, lambda logits: D.Bernoulli(logits=logits), logits, estimator=estimator,
            n_samples=5000, generator=g,
        )  # fmt: skip
        return float(rows.var(0).sum())

    relax = RELAX(lr=0.03)
    before = variance(relax)
    for _ in range(300):
        t1.expectation(
            problem.f, D.Bernoulli(logits=logits), estimator=relax, n_samples=32, generator=g
        ).backward()
    assert variance(relax) < before / 3


def test_relax_may_be_used_twice_before_a_backward() -> None:
    def gradient(*, at_once: bool) -> torch.Tensor:
        torch.manual_seed(0)
        logits, relax = torch.tensor([0.2], requires_grad=True), RELAX(lr=0.1)
        values: list[torch.Tensor] = []
        for _ in range(3):
            q = D.Bernoulli(logits=logits)
            values.append(t1.expectation(lambda b: b.sum(-1) ** 2, q, estimator=relax).value)
            if not at_once:
                values.pop().backward()
        if at_once:
            torch.stack(values).sum().backward()
        assert logits.grad is not None
        return logits.grad

    torch.testing.assert_close(gradient(at_once=True), gradient(at_once=False))


def test_evolution_strategies_smooth() -> None:
    # f = x⁴ at µ = 1, σ = ½: ∇F_σ = 4µ³ + 12µσ² = 7, not ∇f = 4
    for kind in ("plain", "antithetic", "forward"):
        mu = torch.tensor(1.0, requires_grad=True, dtype=torch.float64)
        e = t1.expectation(
            lambda x: x**4, D.Normal(mu, 0.5), estimator=EvolutionStrategies(kind),
            n_samples=400_000, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        e.backward()
        assert mu.grad is not None
        assert mu.grad.item() == pytest.approx(7.0, abs=0.15)


NORMAL = D.Normal(torch.tensor(0.0, requires_grad=True), torch.tensor(1.0, requires_grad=True))
BERNOULLI = D.Bernoulli(logits=torch.tensor(0.0, requires_grad=True))


@pytest.mark.parametrize(
    ("estimator", "distribution", "match"),
    [
        (ARM(), NORMAL, "is not Bernoulli"),
        (DisARM(), NORMAL, "is not Bernoulli"),
        (REBAR(), NORMAL, "is not Bernoulli"),
        (RELAX(), NORMAL, "is not Bernoulli"),
        (StraightThrough(), NORMAL, "neither Bernoulli nor OneHotCategorical"),
        (GumbelSoftmax(), NORMAL, "neither Bernoulli nor OneHotCategorical"),
        (EvolutionStrategies(), BERNOULLI, "is not a Normal"),
        (EvolutionStrategies(), NORMAL, "scale requires grad"),
        (MeasureValued(), D.Laplace(torch.tensor(0.0, requires_grad=True), 1.0), "no weak deriv"),
        (Antithetic(), D.Gamma(torch.tensor(1.0, requires_grad=True), 1.0), "no known mirror"),
        (Antithetic(Pathwise()), BERNOULLI, "has no rsample"),
        (ControlVariate(), D.Cauchy(torch.tensor(0.0, requires_grad=True), 1.0), "finite mean"),
        (Enumeration(), NORMAL, "not finite"),
    ],
    ids=lambda v: v.name if hasattr(v, "name") else "",
)
def test_refusals(estimator: Enumeration, distribution: D.Distribution, match: str) -> None:
    with pytest.raises(EstimatorError, match=match):
        t1.expectation(lambda x: x**2, distribution, estimator=estimator)


def test_options_out_of_range() -> None:
    with pytest.raises(InputError, match="temperature=0: must be > 0"):
        REBAR(temperature=0)
    with pytest.raises(InputError, match="temperature=-1: must be > 0"):
        GumbelSoftmax(-1)
    with pytest.raises(InputError, match="particles=1"):
        VIMCO(1)
    with pytest.raises(EstimatorError, match="stay unbiased when samples come in dependent pairs"):
        Antithetic(LeaveOneOut())
    with pytest.raises(EstimatorError, match="choose plain, antithetic or forward"):
        EvolutionStrategies("central")  # pyright: ignore[reportArgumentType]
    with pytest.raises(EstimatorError, match="pass h and expected together"):
        ControlVariate(lambda x: x)


def test_too_many_outcomes() -> None:
    q = D.Independent(D.Bernoulli(logits=torch.zeros(20, requires_grad=True)), 1)
    with pytest.raises(EstimatorError, match=r"1\.05e\+06 joint outcomes, more than max_points"):
        t1.expectation(lambda b: b.sum(-1), q, estimator=Enumeration())
    assert t1.expectation(lambda b: b.sum(-1), q).estimator == "DisARM"


def test_rebar_needs_a_differentiable_f() -> None:
    with pytest.raises(EstimatorError, match="cut off from the graph"):
        t1.expectation(lambda b: (b > 0).float(), BERNOULLI, estimator=REBAR())


def test_auto_enumerates_what_is_small() -> None:
    e = t1.expectation(lambda b: b, BERNOULLI)
    assert e.estimator == "Enumeration"
    assert e.stderr.item() == 0
    assert "summed" in e.reason
