"""Every registered estimator against every closed form it claims; planted faults must fail."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution

import thetaone as t1
import thetaone.estimators
from thetaone.estimators import (
    REBAR,
    Estimator,
    EvolutionStrategies,
    LeaveOneOut,
    MovingAverage,
    Problem,
    ScoreFunction,
    quadratic_location,
    tucker,
)
from thetaone.estimators._integrand import Integrand
from thetaone.estimators.distributions import elementary, log_ratio, widen
from thetaone.estimators.judging._catalogue import CATALOGUE
from thetaone.estimators.judging._closed_forms import problems
from thetaone.estimators.judging._conformance import conform, inapplicable
from thetaone.estimators.methods._baselines import tied
from thetaone.estimators.methods._bernoulli import bernoulli_logits, relaxed, relaxed_given

PROBLEMS = {problem.name: problem for problem in problems()}
LIGHT = ("tucker(θ=0.5, t=0.2)", "categorical", "gamma-rate", "bound-4")
GAUSSIAN = "quadratic-location-2"  # quick for those that apply to little else
NORMAL_ONLY = ("antithetic-pathwise", "delta-method", "es-plain", "es-antithetic", "es-forward")
ALSO_QUICK = {("pathwise", "mixture"), ("pathwise", "dirichlet"), ("leave-one-out", "von-mises")}

# Who applies to what, written down: a refusal that is too eager would hide a pair from the z-test.
NORMAL = {"quadratic-2", "quadratic-location-2", "cos", "exp"}
JUMPS = {"step", "jump"}
BERNOULLI = {"tucker(θ=0.5, t=0.2)", "tucker(θ=-1, t=0.8)", "bernoulli-joint"}
CATEGORICAL = {"categorical", "one-hot"}
COUNTS = {"poisson", "geometric", "binomial"}
POSITIVE = {"lognormal", "exponential", "gamma", "gamma-rate", "log-gamma", "weibull"}
SCALAR = POSITIVE | {"beta", "laplace", "student-t", "transformed"}
SYMMETRIC = NORMAL | {"multivariate-normal", "laplace", "student-t"}
MIXTURES = {"mixture", "mixture-of-products"}
PATHS = NORMAL | SCALAR | MIXTURES | {"multivariate-normal", "dirichlet", "uniform"}
FIXED = (PATHS | JUMPS | BERNOULLI | CATEGORICAL | COUNTS | {"von-mises"}) - {"uniform"}
APPLIES: dict[str, set[str]] = {
    "score": FIXED,
    "score-constant": FIXED,
    "score-callable": FIXED,
    "score-moving-average": FIXED,
    # needs a tensor of its own for every sample and coordinate
    "score-optimal": FIXED - MIXTURES - {"multivariate-normal", "transformed"},
    "leave-one-out": FIXED,
    "antithetic-score": NORMAL
    | JUMPS
    | BERNOULLI
    | {"multivariate-normal", "laplace", "student-t"},
    "antithetic-pathwise": SYMMETRIC | {"uniform"},
    "pathwise": PATHS,
    "measure-valued": NORMAL | JUMPS | BERNOULLI | {"poisson", "exponential", "gamma-rate"},
    "enumeration": BERNOULLI | CATEGORICAL | {"binomial"},
    # needs the mean of the sum over coordinates
    "control-variate": FIXED
    - CATEGORICAL
    - {"multivariate-normal", "dirichlet", "transformed", "mixture-of-products"},
    "delta-method": NORMAL | {"jump"},
    "delta-method-regression": NORMAL | {"jump"},
    "es-plain": JUMPS | {"quadratic-location-2"},
    "es-antithetic": JUMPS | {"quadratic-location-2"},
    "es-forward": JUMPS | {"quadratic-location-2"},
    "arm": BERNOULLI,
    "disarm": BERNOULLI,
    "rebar": BERNOULLI,
    "relax": BERNOULLI,
    "vimco": {"bound-4"},
    "straight-through": set(),
    "gumbel-softmax": set(),
    "gumbel-softmax-hard": set(),
}


def _marks(name: str, problem: str) -> tuple[pytest.MarkDecorator, ...]:
    light = problem in LIGHT or (problem == GAUSSIAN and name in NORMAL_ONLY)
    return () if light or (name, problem) in ALSO_QUICK else (pytest.mark.slow,)


PAIRS = [
    pytest.param(name, problem, marks=_marks(name, problem))
    for name, applies in APPLIES.items()
    for problem in sorted(applies)
]
BIASED = ("straight-through", "gumbel-softmax", "gumbel-softmax-hard")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small tensors: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "problem"), PAIRS)
def test_unbiased(name: str, problem: str) -> None:
    found = conform(CATALOGUE[name](), PROBLEMS[problem])
    assert found.resolution <= 0.02, f"too weak to see a bias of 2 %: {found}"
    assert abs(found.worst) <= 4.5, found


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_refuses_nothing_that_it_should_do(name: str) -> None:
    reasons = {problem: inapplicable(CATALOGUE[name](), PROBLEMS[problem]) for problem in PROBLEMS}
    assert {problem for problem, reason in reasons.items() if not reason} == APPLIES[name], reasons


def concrete(kind: type[Estimator]) -> set[type[Estimator]]:
    below = {one for subclass in kind.__subclasses__() for one in concrete(subclass)}
    return below if inspect.isabstract(kind) else {kind, *below}


def test_every_estimator_is_registered_tested_and_public() -> None:
    for module in pkgutil.iter_modules(thetaone.estimators.__path__):
        importlib.import_module(f"thetaone.estimators.{module.name}")
    inside = {kind for kind in concrete(Estimator) if kind.__module__.startswith("thetaone")}
    assert inside == {type(make()) for make in CATALOGUE.values()}
    assert {name for name, applies in APPLIES.items() if not applies} == set(BIASED)
    assert all(getattr(t1.estimators, kind.__name__) is kind for kind in inside)


@pytest.mark.parametrize("name", BIASED)
def test_biased_estimators_say_so_and_are(name: str) -> None:
    estimator = CATALOGUE[name]()
    assert not estimator.unbiased
    assert estimator.declared.startswith("biased")
    assert inapplicable(estimator, PROBLEMS[LIGHT[0]]).startswith("biased")
    found = conform(estimator, tucker(1.0), max_estimates=40_000)
    assert not found.passed
    assert abs(found.worst) > 20


class SeesItsOwnSample(ScoreFunction):
    """A moving average updated before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.average = MovingAverage(0.9)

    def surrogate(
        self, f: Integrand, distribution: Distribution, draws: tuple[Tensor, Tensor | None]
    ) -> Tensor:
        values = f(draws[0])
        self.average.update(values.mean(0))
        box = log_ratio(distribution, draws[0], f.lead(values)).exp()
        baseline = self.average.value
        assert baseline is not None  # updated above
        return box * values - (box - 1) * baseline


class BatchMean(LeaveOneOut):
    """The mean over all samples as baseline: E = (1 − 1/K) g."""

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        values = f(draws)
        box = log_ratio(distribution, draws, f.lead(values)).exp()
        return box * values - (box - 1) * values.mean(0)


class WithoutSigma(EvolutionStrategies):
    """f(µ + σε) ε, without 1/σ."""

    def surrogate(self, f: Integrand, distribution: Distribution, draws: Tensor) -> Tensor:
        base = elementary(distribution)
        assert isinstance(base, D.Normal)
        values = f(base.loc.detach() + base.scale * draws)
        return values + tied([(base.loc, widen(values, draws) * draws)], f.lead(values))


class WithoutLastTerm(REBAR):
    """REBAR that forgets −∇c(z̃)."""

    def surrogate(
        self, f: Integrand, distribution: Distribution, draws: tuple[Tensor, Tensor]
    ) -> Tensor:
        theta = bernoulli_logits(distribution)
        z, b = relaxed(theta, draws[0])
        conditional = relaxed_given(theta, b, draws[1]).detach()
        values = f(b)
        c, c_conditional = (f((part / self.temperature).sigmoid()) for part in (z, conditional))
        ratio = log_ratio(distribution, b, f.lead(values))
        return values + (values - c_conditional) * ratio + (c - c.detach())


class Undetached(ScoreFunction):
    """The score at x = rsample(), where it vanishes."""

    def surrogate(
        self, f: Integrand, distribution: Distribution, draws: tuple[Tensor, Tensor | None]
    ) -> Tensor:
        base = elementary(distribution)
        assert isinstance(base, D.Normal)
        x = base.loc + (draws[0] - base.loc.detach())
        values = f(draws[0])
        log_p = distribution.log_prob(x)
        return values + values * (log_p - log_p.detach())


FAULTS: list[tuple[Estimator, Estimator, Problem]] = [
    (SeesItsOwnSample(), ScoreFunction(MovingAverage(0.9)), tucker(0.5, t=0.2)),
    (BatchMean(), LeaveOneOut(), tucker(0.5, t=0.2)),
    (WithoutSigma("plain"), EvolutionStrategies("plain"), quadratic_location(2, mu=1.0, sigma=0.7)),
    (WithoutLastTerm(), REBAR(), tucker(0.5, t=0.2)),
    (Undetached(), ScoreFunction(), quadratic_location(2, mu=1.0, sigma=0.7)),
]


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("fault", "sound", "problem"), FAULTS, ids=[type(fault).__name__ for fault, _, _ in FAULTS]
)
def test_planted_fault_fails(fault: Estimator, sound: Estimator, problem: Problem) -> None:
    assert conform(sound, problem).passed
    found = conform(fault, problem)
    assert not found.passed
    assert found.resolution <= 0.02 or abs(found.worst) > 4.5
    assert abs(found.worst) > 4.5


def test_a_test_without_power_does_not_pass() -> None:
    found = conform(ScoreFunction(), tucker(0.0), max_estimates=20_000)
    assert not found.passed
    assert found.resolution > 1
    assert torch.tensor(found.z).abs().max() < 4.5
