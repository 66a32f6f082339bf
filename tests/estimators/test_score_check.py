"""E[score] = 0 finds samples that log p does not describe, and leaves sound distributions alone."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import Distribution

import thetaone as t1
from thetaone.errors import EstimatorError, EstimatorWarning
from thetaone.estimators import Antithetic, LeaveOneOut, Pathwise, ScoreFunction, _score_warning
from thetaone.estimators.distributions import check_score, dead_path
from thetaone.estimators.judging._closed_forms import problems

PROBLEMS = {problem.name: problem for problem in problems()}
NO_SHAPE = torch.Size()
Make = Callable[[], Distribution]


def t(value: float | list[float] | list[list[float]], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def relaxed(temperature: float, logit: float, dtype: torch.dtype) -> Distribution:
    return D.RelaxedBernoulli(torch.tensor(temperature, dtype=dtype), logits=t(logit, dtype))


def tanh_normal(mean: float, scale: float) -> Distribution:
    return D.TransformedDistribution(D.Normal(t(mean), scale), [D.TanhTransform(cache_size=1)])


class Lagged(D.Normal):
    """Samples of another mean than log_prob describes."""

    def sample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        return super().sample(sample_shape) + 0.5 * self.scale.detach()


def shifted_uniform() -> Distribution:
    return D.TransformedDistribution(D.Uniform(0.0, 1.0), [D.AffineTransform(t(2.0), 1.0)])


def stretched_uniform() -> Distribution:
    base = D.Independent(D.Uniform(torch.zeros(3), torch.ones(3)), 1)
    return D.TransformedDistribution(base, [D.AffineTransform(0.0, t(2.0), event_dim=1)])


def lattice() -> Distribution:
    return D.TransformedDistribution(D.Bernoulli(0.3), [D.AffineTransform(0.0, t(2.0))])


FAULTS: dict[str, tuple[Make, str]] = {
    "relaxed, float32": (lambda: relaxed(0.1, 2.0, torch.float32), "logits"),
    "beta": (lambda: D.Beta(t(0.02), t(0.02)), "concentration"),
    "gamma": (lambda: D.Gamma(t(0.02), t(1.0)), "concentration"),
    "dirichlet": (lambda: D.Dirichlet(t([0.01] * 3)), "concentration"),
    "tanh of a normal": (lambda: tanh_normal(5.0, 1.0), "loc"),
    "stretched support": (stretched_uniform, "scale"),
    "shifted support": (shifted_uniform, "loc"),
    "lattice": (lattice, "scale"),
    "lkj": (lambda: D.LKJCholesky(3, t(1.0)), "concentration"),
    "another law": (lambda: Lagged(t(0.0), torch.tensor(1.0)), "loc"),
    "probability 0": (lambda: D.Bernoulli(t(0.0)), "probs"),
    "probability 1 in a batch": (lambda: D.Bernoulli(t([0.3, 1.0])), "probs[1]"),
    "a class of probability 0": (lambda: D.Categorical(t([0.5, 0.5, 0.0])), "probs[2]"),
}
LINEAR = torch.nn.Linear(3, 5)  # of any weights: nothing here may depend on them
MASK = torch.tensor([True, True, False, True, True])
SOUND: dict[str, Make] = {
    "normal": lambda: D.Normal(t(0.0), t(1.0)),
    "tiny spread": lambda: D.Normal(t(100.0), t(1e-3)),
    "student": lambda: D.StudentT(t(3.0)),
    "categorical of a network": lambda: D.Categorical(logits=LINEAR(torch.ones(3))),
    "masked logits": lambda: D.Categorical(logits=LINEAR(torch.ones(3)).masked_fill(~MASK, -1e9)),
    "masked probabilities": lambda: D.Categorical(
        torch.where(MASK, LINEAR(torch.ones(3)).softmax(-1), torch.zeros(5))
    ),
    "many classes, few drawn": lambda: D.Categorical(logits=t([-0.1 * i for i in range(200)])),
    "rare": lambda: D.Bernoulli(t(1e-4)),
    "rare, many": lambda: D.Bernoulli(t([1e-3] * 50)),
    "rare count": lambda: D.Poisson(t(1e-3)),
    "never drawn": lambda: D.Bernoulli(logits=t(-20.0)),
    "tied tensors": lambda: D.ContinuousBernoulli(t(0.3)),
    "triangular": lambda: D.MultivariateNormal(
        t([0.0, 0.0]), scale_tril=t([[1.0, 0.0], [0.5, 1.0]])
    ),
    "mixture": lambda: D.MixtureSameFamily(
        D.Categorical(logits=t([0.1, 0.2])), D.Normal(t([0.0, 2.0]), 1.0)
    ),
    "multinomial": lambda: D.Multinomial(5, logits=t([0.1, 0.3, -0.2])),
    "lkj of size 2": lambda: D.LKJCholesky(2, t(1.0)),
    "small tanh": lambda: tanh_normal(0.0, 0.5),
    "gamma": lambda: D.Gamma(t(2.0), t(1.0)),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_is_found_and_named(name: str) -> None:
    make, tensor = FAULTS[name]
    check = check_score(make(), n_samples=8192)
    assert not check.passed
    assert tensor in check.tensor
    assert math.isnan(check.z) or check.z == 0 or abs(check.z) > check.limit


def test_float64_is_found_with_more_samples() -> None:
    distribution = relaxed(0.1, 2.0, torch.float64)
    assert check_score(distribution, n_samples=8192).passed
    assert check_score(distribution, n_samples=131_072).z < -15


@pytest.mark.parametrize("name", list(SOUND))
@pytest.mark.parametrize("n_samples", [1024, 8192])
@pytest.mark.filterwarnings("ignore:Singular sample")
def test_a_sound_distribution_passes(name: str, n_samples: int) -> None:
    check = check_score(SOUND[name](), n_samples=n_samples)
    assert check.passed, check


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "uniform"])
def test_every_registered_distribution_has_a_centred_score(name: str) -> None:
    problem = PROBLEMS[name]
    params = {key: value.clone().requires_grad_() for key, value in problem.params.items()}
    check = check_score(problem.make(**params), n_samples=8192, parameters=params)
    assert check.passed, check


def test_of_thousands_of_rare_outcomes_few_are_taken_for_faults() -> None:
    # false alarms would be of the order of one in a hundred with a plain t-test on so skewed scores
    alarms = 0
    for power in range(200):
        rate = 10 ** (-4.5 + 3 * power / 200)
        alarms += not check_score(D.Poisson(t(rate)), n_samples=1024).passed
    assert alarms == 0


def test_no_evaluation_of_f_and_nothing_from_the_callers_generator() -> None:
    g, same = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    calls: list[int] = []

    def f(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x

    q = D.Gamma(t(2.0), 1.0)
    with_check = t1.expectation(f, q, estimator=LeaveOneOut(), generator=g, check=True)
    without = t1.expectation(f, q, estimator=LeaveOneOut(), generator=same, check=False)
    assert calls == [64, 64]
    assert with_check.value.item() == without.value.item()


def test_a_kind_is_looked_at_once_and_what_was_found_is_said_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_score_warning, "_SEEN", {})

    def run(check: bool | None, estimator: LeaveOneOut | Pathwise | None = None) -> int:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            t1.expectation(
                lambda x: x, D.Gamma(t(0.02), t(1.0)), estimator=estimator or LeaveOneOut(),
                check=check,
            )  # fmt: skip
        assert all(w.filename == __file__ for w in seen)
        return len(seen)

    assert run(False) == 0
    assert run(None) == 1
    monkeypatch.setattr(_score_warning, "check_score", None)  # it is not asked again
    assert run(None) == 1
    monkeypatch.undo()
    assert run(True) == 1
    assert run(True, Pathwise()) == 0  # it does not use the score


@pytest.mark.float32
def test_the_warning_says_tensor_z_and_remedy() -> None:
    with pytest.warns(EstimatorWarning, match=r"concentration is not 0: \+\d+ standard.*float64"):
        t1.gradient_samples(
            lambda x: x, lambda a: D.Gamma(a, 1.0), torch.tensor(0.02), check=True,
            estimator=ScoreFunction(),
        )  # fmt: skip


def test_antithetic_relies_on_what_it_mirrors() -> None:
    assert Antithetic(ScoreFunction()).uses_score
    assert not Antithetic(Pathwise()).uses_score


def test_log_p_is_guarded_as_f_is() -> None:
    q = tanh_normal(9.0, 1.0)
    with pytest.raises(EstimatorError, match=r"log p of Transformed.*NaN or infinite.*float64"):
        t1.expectation(lambda x: x, q, estimator=ScoreFunction(), n_samples=5000, check=False)


@pytest.mark.parametrize("logits", [[0.0], [1.0, 0.0], [0.0, 0.001]])
def test_a_path_without_the_parameter_is_refused(logits: list[float]) -> None:
    q = D.ContinuousBernoulli(logits=t(logits, torch.float64))
    assert dead_path(q)
    with pytest.raises(EstimatorError, match=r"no path leads from logits\[\d\].*LeaveOneOut\(\)"):
        t1.expectation(lambda x: x.sum(-1), q, estimator=Pathwise())
    assert t1.expectation(lambda x: x.sum(-1), q).estimator == "LeaveOneOut"


def test_a_users_branch_is_seen_too() -> None:
    class Branching(D.Normal):
        def rsample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
            x = super().rsample(sample_shape)
            return torch.where(self.loc > 1, x.detach(), x)

    assert dead_path(Branching(t([0.0, 2.0]), 1.0)) == "loc[1]"
    assert not dead_path(Branching(t([0.0, 0.5]), 1.0))


def test_a_parameter_that_has_moved_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_score_warning, "_SEEN", {})

    def run(q: Distribution) -> None:
        t1.expectation(lambda x: x, q, estimator=LeaveOneOut())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for concentration in (2.0, 1.9, 0.5):
            run(D.Gamma(t(concentration), 1.0))
        run(D.Bernoulli(t(0.3)))
    with pytest.warns(EstimatorWarning, match="concentration"):
        run(D.Gamma(t(0.02), 1.0))
    with pytest.warns(EstimatorWarning, match="probs is 0 for every sample"):
        run(D.Bernoulli(t(0.0)))


@pytest.mark.parametrize("estimator", [LeaveOneOut(), "auto"])
def test_a_transform_without_an_inverse(estimator: LeaveOneOut | str) -> None:
    q = D.TransformedDistribution(D.Normal(t(0.3), 1.0), [D.AbsTransform()])
    if estimator == "auto":  # a path leads through it
        assert t1.expectation(torch.square, q).estimator == "Pathwise"
        return
    with pytest.raises(EstimatorError, match=r"log p of Transformed.* is not known to torch"):
        t1.expectation(torch.square, q, estimator=estimator)


def test_a_lattice_behind_a_transform_is_discrete() -> None:
    q = D.TransformedDistribution(D.Poisson(t(2.0)), [D.AffineTransform(0.0, 2.0)])
    with pytest.raises(EstimatorError, match="is discrete: no path leads"):
        t1.expectation(lambda x: x, q, estimator=Pathwise())
    assert t1.expectation(lambda x: x, q).estimator == "LeaveOneOut"


def test_a_fixed_temperature_makes_a_kind_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_score_warning, "_SEEN", {})

    def run(temperature: float) -> None:
        q = D.RelaxedBernoulli(torch.tensor(temperature), logits=t(3.0))
        t1.expectation(lambda x: x, q, estimator=LeaveOneOut())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(1.0)
    with pytest.warns(EstimatorWarning, match="logits is not 0"):
        run(0.1)


@pytest.mark.parametrize(("temperature", "wrong"), [(1.0, False), (0.2, True)])
def test_the_entries_of_a_large_batch_are_pooled(temperature: float, wrong: bool) -> None:
    q = D.RelaxedBernoulli(torch.tensor(temperature), logits=t([3.0] * 4096))
    verdict = check_score(q, n_samples=64)
    assert verdict.passed is not wrong
    assert wrong is ("logits (all entries together)" in verdict.reason)


def test_samples_that_are_rounded_off_their_support_are_named() -> None:
    q = D.RelaxedOneHotCategorical(torch.tensor(0.01), logits=t([30.0, 0.0, 0.0]))
    q.log_prob = _refused  # type: ignore[method-assign]
    with pytest.raises(EstimatorError, match=r"does not take its own samples.*float64"):
        t1.expectation(lambda x: x[..., 0], q, estimator=LeaveOneOut(), check=False)


def _refused(_: Tensor) -> Tensor:
    raise ValueError("Expected value argument to be within the support (Simplex())")
