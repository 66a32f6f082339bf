"""``expectation`` on every kind of distribution and f."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D
from torch.utils._python_dispatch import TorchDispatchMode

import thetaone as t1
from thetaone.errors import EstimatorError
from thetaone.estimators import (
    VIMCO,
    DisARM,
    Enumeration,
    Estimator,
    LeaveOneOut,
    Pathwise,
    ScoreFunction,
)
from thetaone.estimators.distributions import drawing_from, log_ratio


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ESTIMATORS = [ScoreFunction(), LeaveOneOut(), Pathwise()]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_gradient_and_value_of_a_gaussian_square(estimator: LeaveOneOut) -> None:
    mu = torch.tensor([0.3, -0.2], requires_grad=True, dtype=torch.float64)
    sigma = torch.tensor(0.8, requires_grad=True, dtype=torch.float64)
    normal = D.Independent(D.Normal(mu, sigma), 1)
    e = t1.expectation(
        lambda x: (x**2).sum(-1), normal, estimator=estimator, n_samples=200_000,
        generator=generator(),
    )  # fmt: skip
    e.backward()
    truth = 0.13 + 2 * 0.64
    assert e.stderr.item() < 0.01
    assert abs(e.value.item() - truth) < 4.5 * e.stderr.item()
    assert mu.grad is not None
    assert sigma.grad is not None
    torch.testing.assert_close(mu.grad, 2 * mu.detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(sigma.grad, 4 * sigma.detach(), atol=0.15, rtol=0)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_second_derivative_is_right(estimator: LeaveOneOut) -> None:
    # E x⁴ with x ~ N(µ, σ²): ∂²/∂µ² = 12(µ² + σ²)
    mu = torch.tensor(0.5, requires_grad=True, dtype=torch.float64)
    e = t1.expectation(
        lambda x: x**4, D.Normal(mu, 0.5), estimator=estimator, n_samples=400_000,
        generator=generator(),
    )  # fmt: skip
    (first,) = torch.autograd.grad(e.value, mu, create_graph=True)
    (second,) = torch.autograd.grad(first, mu)
    assert first.item() == pytest.approx(4 * 0.125 + 12 * 0.5 * 0.25, rel=0.03)
    assert second.item() == pytest.approx(6.0, rel=0.05)


def test_generator_reproduces_and_leaves_the_global_rng_alone() -> None:
    rate = torch.tensor([1.0, 2.0], requires_grad=True)

    def run(g: torch.Generator) -> Tensor:
        e = t1.expectation(
            lambda x: x.sum(-1),
            D.Gamma(rate, 1.0),
            estimator=LeaveOneOut(),
            generator=g,
        )
        return e.value.detach()

    before = torch.get_rng_state()
    g = generator(3)
    first, second = run(g), run(g)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(run(generator(3)), first)
    assert not torch.equal(first, second)  # the generator has moved on


def test_drawing_continues_the_generators_stream() -> None:
    with drawing_from(generator(7)):
        drawn = torch.randn(5)
    assert torch.equal(drawn, torch.randn(5, generator=generator(7)))


def test_global_rng_is_used_without_a_generator() -> None:
    mu = torch.tensor(0.0, requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        a = t1.expectation(lambda x: x, D.Normal(mu, 1.0)).value.item()
        torch.manual_seed(1)
        b = t1.expectation(lambda x: x, D.Normal(mu, 1.0)).value.item()
    assert a == b


def test_batch_of_distributions_keeps_expectations_apart() -> None:
    logits = torch.randn(4, 3, generator=generator(), requires_grad=True)
    weights = torch.randn(4, 3, generator=generator(1))
    q = D.Bernoulli(logits=logits)
    e = t1.expectation(
        lambda b: (b * weights).sum(-1), q, estimator=LeaveOneOut(), n_samples=50_000,
        generator=generator(2),
    )  # fmt: skip
    assert e.value.shape == e.stderr.shape == (4,)
    e.value.sum().backward()
    p = logits.detach().sigmoid()
    truth = (p * weights).sum(-1)
    assert bool(((e.value - truth).abs() <= 4.5 * e.stderr).all())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, p * (1 - p) * weights, atol=0.03, rtol=0)


def test_several_expectations_need_a_weight_for_backward() -> None:
    e = t1.expectation(lambda x: x, D.Normal(torch.zeros(3, requires_grad=True), 1.0))
    with pytest.raises(t1.ThetaOneError, match=r"e\.value\.mean\(\)\.backward"):
        e.backward()
    e.backward(torch.ones(3))


def test_gradient_reaches_what_produced_the_parameters_and_what_f_holds() -> None:
    encoder = torch.nn.Linear(2, 2, dtype=torch.float64)
    scale = torch.tensor(1.5, requires_grad=True, dtype=torch.float64)
    x = torch.ones(2, dtype=torch.float64)
    logits = encoder(x)
    e = t1.expectation(
        lambda b: scale * b.sum(-1), D.Independent(D.Bernoulli(logits=logits), 1),
        estimator=LeaveOneOut(), n_samples=100_000, generator=generator(),
    )  # fmt: skip
    e.backward()
    p = logits.detach().sigmoid()
    assert scale.grad is not None
    # the gradient of what f holds is that of the sample mean, exactly
    assert scale.grad.item() == pytest.approx(e.value.item() / 1.5, rel=1e-12)
    assert encoder.bias.grad is not None
    torch.testing.assert_close(encoder.bias.grad, 1.5 * p * (1 - p), atol=0.02, rtol=0)


def _families() -> dict[str, tuple[D.Distribution, Tensor, Tensor, str]]:
    """Distribution, parameter, exact gradient of E x (or E x², for the mixture), estimators."""
    loc = torch.tensor(0.4, requires_grad=True, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    affine = D.TransformedDistribution(D.Normal(0 * one, one), [D.AffineTransform(loc, 2 * one)])
    tril = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    locs = torch.tensor([-1.0, 1.0], requires_grad=True, dtype=torch.float64)
    mixture = D.MixtureSameFamily(D.Categorical(probs=one.expand(2)), D.Normal(locs, one))
    shape = torch.tensor(2.0, requires_grad=True, dtype=torch.float64)
    return {
        "transformed": (affine, loc, one, "both"),
        "multivariate": (
            D.MultivariateNormal(torch.zeros(2, dtype=torch.float64), scale_tril=tril),
            tril, 2 * tril.detach().tril(), "both",
        ),
        "mixture": (mixture, locs, locs.detach(), "both"),
        "gamma": (D.Gamma(shape, one), shape, 2 * shape.detach() + 1, "both"),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_families()))
@pytest.mark.parametrize("estimator", ESTIMATORS[1:], ids=lambda e: e.name)
def test_any_distribution(name: str, estimator: LeaveOneOut) -> None:
    distribution, parameter, truth, _ = _families()[name]

    def f(x: Tensor) -> Tensor:
        if name == "transformed":
            return x
        return (x**2).sum(-1) if name == "multivariate" else x**2

    e = t1.expectation(
        f, distribution, estimator=estimator, n_samples=300_000, generator=generator()
    )
    e.backward()
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, truth, atol=0.08, rtol=0)


@pytest.mark.float32
def test_one_sample_at_a_time_black_box_in_chunks() -> None:
    mu = torch.zeros(3, requires_grad=True)
    seen: list[int] = []

    def vectorised(x: Tensor) -> Tensor:
        seen.append(x.shape[0])
        return (x**2).sum(-1)

    def options(f: object, **extra: object) -> dict[str, Any]:
        return {"f": f, "distribution": D.Normal(mu, 1.0), "estimator": LeaveOneOut(),
                "n_samples": 100, "generator": generator(5)} | extra  # fmt: skip

    whole = t1.expectation(**options(vectorised))
    chunked = t1.expectation(**options(vectorised, max_bytes=16 * 12))
    single = t1.expectation(**options(lambda x: float((x**2).sum()), vectorized=False))
    black_box = t1.expectation(**options(lambda x: (x.numpy() ** 2).sum(-1)))
    assert seen == [100, 16, 16, 16, 16, 16, 16, 4]
    assert whole.evaluations == chunked.evaluations == single.evaluations == 100
    gradients = [torch.autograd.grad(e.value, mu)[0] for e in (whole, chunked, single, black_box)]
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_pathwise_in_chunks_has_the_same_gradient() -> None:
    mu = torch.zeros(3, requires_grad=True)
    weight = torch.ones(3, requires_grad=True)
    results = []
    for max_bytes in (None, "1KiB"):
        e = t1.expectation(
            lambda x: (weight * x.sin()).sum(-1), D.Normal(mu, 1.0), estimator=Pathwise(),
            n_samples=1000, generator=generator(), max_bytes=max_bytes,
        )  # fmt: skip
        results.append(torch.autograd.grad(e.value, (mu, weight)))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked)


def test_auto_says_why() -> None:
    mu = torch.tensor(0.1, requires_grad=True)
    smooth = t1.expectation(lambda x: x**2, D.Normal(mu, 1.0))
    step = t1.expectation(lambda x: (x > 0).float(), D.Normal(mu, 1.0))
    single = t1.expectation(lambda x: (x > 0).float(), D.Normal(mu, 1.0), n_samples=1)
    assert (smooth.estimator, step.estimator) == ("Pathwise", "LeaveOneOut")
    assert single.estimator == "ScoreFunction"
    assert "rsample" in smooth.reason
    assert "does not carry a gradient" in step.reason
    assert "unbiased" in str(smooth)


def test_score_on_an_attached_f_of_the_sample_is_right() -> None:
    # the silent zero of torch: ∇ log p(x) at x = rsample() vanishes; here samples are detached
    mu = torch.tensor(0.3, requires_grad=True, dtype=torch.float64)
    q = D.Normal(mu, 1.0)
    e = t1.expectation(
        lambda x: x**2,
        q,
        estimator=ScoreFunction(),
        n_samples=200_000,
        generator=generator(),
    )
    e.backward()
    assert mu.grad is not None
    assert mu.grad.item() == pytest.approx(0.6, abs=0.05)


def test_f_may_depend_on_the_parameters_itself() -> None:
    # E log q(x) = −½ log(2πeσ²): the score term must be joined by ∇f
    sigma = torch.tensor(2.0, requires_grad=True, dtype=torch.float64)
    q = D.Normal(torch.zeros((), dtype=torch.float64), sigma)
    e = t1.expectation(
        q.log_prob,
        q,
        estimator=LeaveOneOut(),
        n_samples=200_000,
        generator=generator(),
    )
    e.backward()
    assert sigma.grad is not None
    assert sigma.grad.item() == pytest.approx(-0.5, abs=0.01)


def test_value_alone_under_no_grad() -> None:
    with torch.no_grad():
        e = t1.expectation(lambda x: x**2, D.Normal(0.0, 1.0), generator=generator())
    assert not e.value.requires_grad


def test_moving_average_never_sees_its_own_sample() -> None:
    from thetaone.estimators import MovingAverage

    average = MovingAverage(0.5)
    mu = torch.tensor(0.0, requires_grad=True)
    for expected in (None, 1.0, 1.0):
        assert average.value is None if expected is None else average.value == expected
        e = t1.expectation(
            lambda x: torch.ones_like(x), D.Normal(mu, 1.0),
            estimator=ScoreFunction(average), generator=generator(),
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(e.value, mu)
        # a constant f: once the average knows it, nothing is left of the noise
        assert (gradient.abs() < 1e-7).item() is (expected is not None)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_second_derivative_in_chunks_is_that_of_the_whole(
    estimator: LeaveOneOut,
) -> None:
    weight = torch.tensor(1.5, requires_grad=True, dtype=torch.float64)
    found = []
    for max_bytes in (None, 80):
        mu = torch.tensor([0.3, -0.1], requires_grad=True, dtype=torch.float64)
        e = t1.expectation(
            lambda x: (weight * x**3).sum(-1), D.Normal(mu, 1.0), estimator=estimator,
            n_samples=50, generator=generator(), max_bytes=max_bytes,
        )  # fmt: skip
        (first,) = torch.autograd.grad(e.value, mu, create_graph=True)
        found.append((first.detach(), *torch.autograd.grad(first.sum(), (mu, weight))))
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(whole, chunked)


def bernoulli_value(logit: Tensor, estimator: Estimator | str) -> Tensor:
    q = D.Bernoulli(logits=logit)
    return t1.expectation(
        lambda x: 1.3 * x - logit * x**2, q, estimator=estimator, n_samples=8, generator=generator()
    ).value


@pytest.mark.parametrize(
    "estimator",
    ["auto", ScoreFunction(), ScoreFunction("optimal"), LeaveOneOut(), Enumeration(), VIMCO(3),
     DisARM()],
    ids=lambda e: e if isinstance(e, str) else e.name,
)  # fmt: skip
def test_torch_func_gives_the_same_gradient(estimator: Estimator | str) -> None:
    logit = torch.tensor(0.4, requires_grad=True)
    (expected,) = torch.autograd.grad(bernoulli_value(logit, estimator), logit)
    by_func = torch.func.grad(bernoulli_value)(logit.detach(), estimator)
    torch.testing.assert_close(by_func, expected)


def test_torch_func_twice_is_right_or_refused() -> None:
    logit = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    twice = torch.func.grad(torch.func.grad(bernoulli_value))
    (first,) = torch.autograd.grad(bernoulli_value(logit, LeaveOneOut()), logit, create_graph=True)
    (second,) = torch.autograd.grad(first, logit)
    torch.testing.assert_close(twice(logit.detach(), LeaveOneOut()), second)
    with pytest.raises(EstimatorError, match="first derivatives only"):
        twice(logit.detach(), VIMCO(3))


class HostReads(TorchDispatchMode):
    """Counts how often Python waits for a single number of a tensor."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func in (
            torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default,
        )  # fmt: skip
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("estimator", [*ESTIMATORS, VIMCO(2)], ids=lambda e: e.name)
@pytest.mark.parametrize(
    "make",
    [
        lambda theta: D.Normal(theta, 1.0, validate_args=False),
        lambda theta: D.Gamma(theta, 1.0, validate_args=False),
    ],
    ids=["Normal", "Gamma"],
)
def test_one_host_read_a_call(make: Any, estimator: LeaveOneOut) -> None:
    theta = torch.full((3,), 2.0, requires_grad=True)

    def once() -> None:
        q = D.Independent(make(theta), 1, validate_args=False)
        t1.expectation(lambda x: x.sum(-1), q, estimator=estimator, n_samples=8).backward()

    once()  # the first call of a kind looks at its score
    with HostReads() as reads:
        once()
    assert reads.count <= 1


def test_a_refused_value_does_not_enter_the_moving_average() -> None:
    average = t1.estimators.MovingAverage(0.5)
    mu = torch.tensor(0.0, requires_grad=True)
    with pytest.raises(EstimatorError, match="f returned NaN or inf"):
        t1.expectation(lambda x: x / 0, D.Normal(mu, 1.0), estimator=ScoreFunction(average))
    assert average.value is None


@pytest.mark.parametrize("n_lead", [0, 1])
def test_the_gaussian_ratio_has_the_derivatives_of_log_p(n_lead: int) -> None:
    loc = torch.tensor([[0.3, -0.2], [0.1, 2.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[0.8, 1.2], [2.0, 0.4]], dtype=torch.float64, requires_grad=True)
    q = D.Normal(loc, scale)
    x = torch.randn(5, 2, 2, dtype=torch.float64, generator=generator())
    ratio, log_p = log_ratio(q, x, n_lead), q.log_prob(x).flatten(1 + n_lead).sum(-1)
    assert (ratio == 0).all()
    weight = torch.rand(log_p.shape, dtype=torch.float64, generator=generator())
    first = [
        torch.autograd.grad((weight * rows).sum(), (loc, scale), create_graph=True)
        for rows in (ratio, log_p)
    ]
    second = [torch.autograd.grad(a.sum() + (b * b).sum(), (loc, scale)) for a, b in first]
    for ours, truth in zip((*first[0], *second[0]), (*first[1], *second[1]), strict=True):
        torch.testing.assert_close(ours, truth)


def test_the_gaussian_score_at_a_scale_whose_square_is_no_number() -> None:
    loc = torch.zeros(3, requires_grad=True)
    q = D.Normal(loc, 1e-25)
    (score,) = torch.autograd.grad(log_ratio(q, torch.full((1, 3), 2e-25), 0).sum(), loc)
    torch.testing.assert_close(score, torch.full((3,), 2e25))
