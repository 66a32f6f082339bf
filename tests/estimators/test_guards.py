"""What would be silently wrong in plain torch raises, and the message's advice works."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch import distributions as D
from torch.distributions import constraints

import thetaone as t1
from thetaone.errors import EstimatorError, EstimatorWarning, InputError
from thetaone.estimators import (
    ControlVariate,
    DeltaMethod,
    LeaveOneOut,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from thetaone.estimators.distributions import moving_support, trainable


def normal(requires_grad: bool = True, shape: tuple[int, ...] = ()) -> D.Normal:
    return D.Normal(torch.zeros(shape, requires_grad=requires_grad), 1.0)


def square(x: Tensor) -> Tensor:
    return x**2


def test_pathwise_on_a_discrete_distribution() -> None:
    q = D.Poisson(torch.tensor(2.0, requires_grad=True))
    with pytest.raises(EstimatorError, match=r"Poisson.*is discrete.*LeaveOneOut\(\)"):
        t1.expectation(square, q, estimator=Pathwise())
    t1.expectation(square, q, estimator=LeaveOneOut()).backward()


def test_pathwise_on_a_straight_through_distribution() -> None:
    q = D.OneHotCategoricalStraightThrough(logits=torch.zeros(3, requires_grad=True))
    with pytest.raises(EstimatorError, match=r"biased rsample.*StraightThrough\(\)"):
        t1.expectation(lambda x: x[..., 0], q, estimator=Pathwise())


@pytest.mark.parametrize(
    "f", [lambda x: x.detach() ** 2, lambda x: (x > 0).float(), lambda x: x.detach().numpy()]
)
def test_f_cut_off_from_the_graph(f: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(EstimatorError, match="cut off from the graph"):
        t1.expectation(f, normal(), estimator=Pathwise())
    t1.expectation(f, normal(), estimator=LeaveOneOut()).backward()


def test_the_sample_itself_is_not_cut_off() -> None:
    location = torch.tensor(0.5, requires_grad=True)
    e = t1.expectation(lambda x: x, D.Normal(location, 1.0), estimator=DeltaMethod(), n_samples=4)
    e.backward()
    assert location.grad == pytest.approx(1.0, abs=1e-6)  # its own expansion: no noise is left


def test_f_that_holds_parameters_is_no_excuse_for_a_cut() -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(EstimatorError, match="cut off from the graph"):
        t1.expectation(lambda x: scale * x.detach(), normal(), estimator=Pathwise())


def test_leave_one_out_with_one_sample() -> None:
    with pytest.raises(EstimatorError, match=r"needs at least 2.*n_samples>=2"):
        t1.expectation(square, normal(), estimator=LeaveOneOut(), n_samples=1)


def test_column_against_row() -> None:
    with pytest.raises(EstimatorError, match=r"\(64, 1\) for 64 samples; expected \(64,\)"):
        t1.expectation(lambda x: square(x)[:, None], normal(), estimator=LeaveOneOut())


def test_scalar_f_is_told_of_vectorized() -> None:
    with pytest.raises(EstimatorError, match="vectorized=False"):
        t1.expectation(lambda x: square(x).sum(), normal(), estimator=LeaveOneOut())


def test_wrong_batch_shape() -> None:
    with pytest.raises(EstimatorError, match=r"\(64, 2\).*\(64, 3\)"):
        t1.expectation(lambda x: x[:, :2], normal(shape=(3,)), estimator=LeaveOneOut())


def test_baseline_that_takes_the_sample() -> None:
    with pytest.raises(EstimatorError, match="a baseline that sees the sample biases"):
        ScoreFunction(lambda x: x.mean())  # pyright: ignore[reportArgumentType]


def test_baseline_with_one_value_a_sample() -> None:
    with pytest.raises(EstimatorError, match=r"shape \(64,\).*depend on the sample"):
        t1.expectation(square, normal(), estimator=ScoreFunction(lambda: torch.ones(64)))


def test_baseline_is_asked_before_f_is_evaluated() -> None:
    order: list[str] = []

    def baseline() -> float:
        order.append("baseline")
        return 1.0

    def f(x: Tensor) -> Tensor:
        order.append("f")
        return square(x)

    t1.expectation(f, normal(), estimator=ScoreFunction(baseline))
    assert order == ["baseline", "f"]


def test_unknown_baseline_name() -> None:
    with pytest.raises(EstimatorError, match="only baseline with a name is 'optimal'"):
        ScoreFunction("mean")  # pyright: ignore[reportArgumentType]


def test_parameters_without_grad() -> None:
    with pytest.raises(EstimatorError, match=r"no parameter of Normal.*requires_grad_\(\)"):
        t1.expectation(square, normal(requires_grad=False), estimator=LeaveOneOut())


def test_closure_parameters_without_grad() -> None:
    mu = torch.tensor(0.0)
    with pytest.raises(EstimatorError, match="does not require grad"):
        t1.gradient_samples(square, lambda: D.Normal(mu, 1.0), [mu])


def test_integer_parameter() -> None:
    with pytest.raises(EstimatorError, match=r"'rate' is torch\.int64"):
        t1.gradient_samples(square, lambda rate: D.Poisson(rate), torch.tensor(1))


def test_parameters_that_the_distribution_ignores() -> None:
    with pytest.raises(EstimatorError, match="does not depend on mu"):
        t1.gradient_samples(square, lambda mu: normal(False), torch.tensor(1.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_from_f(bad: float) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.where(torch.arange(64) == 5, bad, square(x))

    with pytest.raises(EstimatorError, match="NaN or inf for 1 of 64 samples, first for sample 5"):
        t1.expectation(f, normal(), estimator=LeaveOneOut())


@pytest.mark.parametrize("estimator", [ScoreFunction(), LeaveOneOut()])
def test_support_that_moves(estimator: LeaveOneOut) -> None:
    q = D.Uniform(torch.tensor(0.0), torch.tensor(2.0, requires_grad=True))
    with pytest.raises(EstimatorError, match=r"support of Uniform.*moves.*Pathwise\(\)"):
        t1.expectation(square, q, estimator=estimator)
    e = t1.expectation(square, q, estimator=Pathwise(), n_samples=10_000)
    e.backward()


def test_second_derivative_of_the_implicit_form() -> None:
    locs = torch.tensor([-1.0, 1.0], requires_grad=True)
    q = D.MixtureSameFamily(D.Categorical(torch.ones(2)), D.Normal(locs, 1.0))
    e = t1.expectation(square, q, estimator=Pathwise())
    (first,) = torch.autograd.grad(e.value, locs, create_graph=True)
    with pytest.raises(EstimatorError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), locs)


@pytest.mark.parametrize("n_samples", [0, -1, 2.5])
def test_number_of_samples(n_samples: int) -> None:
    with pytest.raises(InputError, match="whole number of at least 1"):
        t1.expectation(square, normal(), estimator=LeaveOneOut(), n_samples=n_samples)


def test_estimator_name_instead_of_object() -> None:
    with pytest.raises(EstimatorError, match=r"pass 'auto' or an estimator object"):
        t1.expectation(square, normal(), estimator="reinforce")


def test_not_a_distribution() -> None:
    with pytest.raises(EstimatorError, match=r"is a Tensor; pass a torch\.distributions object"):
        t1.expectation(square, torch.zeros(3))  # pyright: ignore[reportArgumentType]


@pytest.mark.float32
def test_byte_limit_below_one_sample() -> None:
    with pytest.raises(EstimatorError, match="one sample takes 40 bytes"):
        t1.expectation(
            lambda x: x.sum(-1),
            normal(shape=(10,)),
            estimator=LeaveOneOut(),
            max_bytes=39,
        )


def test_decay() -> None:
    with pytest.raises(InputError, match=r"decay=1.0: must lie in \[0, 1\)"):
        MovingAverage(1.0)


POSITIVE = torch.tensor(1.5, requires_grad=True)
UNIT = D.Uniform(0.0, 1.0)
EXPONENTIAL = D.Exponential(1.0)
CUBE = D.Independent(D.Uniform(torch.zeros(3), torch.ones(3)), 1)
OCTANT = D.Independent(D.Exponential(torch.ones(3)), 1)
SPACE = D.Independent(D.Normal(torch.zeros(3), torch.ones(3)), 1)


@pytest.mark.parametrize(
    ("distribution", "moves"),
    [
        (D.Pareto(POSITIVE, 1.0), True),
        (D.Pareto(1.0, POSITIVE), False),
        (D.Weibull(POSITIVE, 1.0), False),
        (D.Gumbel(POSITIVE, POSITIVE), False),
        (D.Independent(D.Uniform(torch.zeros(3), POSITIVE.expand(3)), 1), True),
        (
            D.MixtureSameFamily(
                D.Categorical(torch.ones(2)), D.Uniform(torch.zeros(2), POSITIVE.expand(2))
            ),
            True,
        ),
        (D.TransformedDistribution(UNIT, [D.AffineTransform(0.0, POSITIVE)]), True),
        (D.TransformedDistribution(UNIT, [D.AffineTransform(POSITIVE, 1.0)]), True),
        (D.TransformedDistribution(EXPONENTIAL, [D.AffineTransform(POSITIVE, 1.0)]), True),
        # 0 stays where it is
        (D.TransformedDistribution(EXPONENTIAL, [D.AffineTransform(0.0, POSITIVE)]), False),
        (D.TransformedDistribution(EXPONENTIAL, [D.PowerTransform(POSITIVE)]), False),
        # both edges go to infinity first
        (
            D.TransformedDistribution(
                UNIT, [D.SigmoidTransform().inv, D.AffineTransform(POSITIVE, POSITIVE)]
            ),
            False,
        ),
        # an edge of an event is a face: it moves unless it slides along itself
        (D.TransformedDistribution(CUBE, [D.AffineTransform(0.0, POSITIVE, event_dim=1)]), True),
        (D.TransformedDistribution(OCTANT, [D.AffineTransform(0.0, POSITIVE, event_dim=1)]), False),
        (D.TransformedDistribution(OCTANT, [D.AffineTransform(POSITIVE, 1.0, event_dim=1)]), True),
        (D.TransformedDistribution(SPACE, [D.AffineTransform(0.0, POSITIVE, event_dim=1)]), False),
        # a lattice moves with its points
        (D.TransformedDistribution(D.Bernoulli(0.3), [D.AffineTransform(0.0, POSITIVE)]), True),
        (D.TransformedDistribution(D.Bernoulli(0.5), [D.AffineTransform(POSITIVE, 1.0)]), True),
        (D.TransformedDistribution(D.Poisson(POSITIVE), [D.AffineTransform(0.0, 2.0)]), False),
    ],
    ids=range(19),
)
def test_a_support_that_moves_is_seen_through_transforms(
    distribution: D.Distribution, moves: bool
) -> None:
    assert bool(moving_support(distribution)) is moves


def test_a_transform_and_its_inverse_hold_each_other() -> None:
    locs = torch.tensor([0.0, 1.0], requires_grad=True)
    mixture = D.MixtureSameFamily(D.Categorical(torch.ones(2)), D.Normal(locs, 1.0))
    q = D.TransformedDistribution(mixture, [D.ExpTransform()])
    q.log_prob(torch.tensor(1.0))  # makes the inverse
    assert trainable(q)  # and it ends
    e = t1.expectation(torch.log, q, estimator=Pathwise(), n_samples=20_000)
    e.backward()
    assert locs.grad is not None
    torch.testing.assert_close(locs.grad, torch.full((2,), 0.5), atol=0.05, rtol=0)


def test_a_cdf_that_torch_cannot_differentiate() -> None:
    shape = torch.tensor([2.0, 3.0], requires_grad=True)
    q = D.MixtureSameFamily(D.Categorical(torch.ones(2)), D.Gamma(shape, 1.0))
    with pytest.raises(EstimatorError, match=r"cannot differentiate the cdf.*LeaveOneOut\(\)"):
        t1.expectation(square, q, estimator=Pathwise())
    assert t1.expectation(square, q).estimator == "LeaveOneOut"


def test_a_mean_that_torch_does_not_know() -> None:
    q = D.TransformedDistribution(normal(), [D.ExpTransform()])
    with pytest.raises(EstimatorError, match="no known finite mean; pass h and expected"):
        t1.expectation(square, q, estimator=ControlVariate())


def test_an_optimal_baseline_for_parameters_of_a_transform() -> None:
    q = D.TransformedDistribution(D.Normal(0.0, 1.0), [D.AffineTransform(0.0, POSITIVE)])
    with pytest.raises(EstimatorError, match=r"shares tensors between samples.*LeaveOneOut\(\)"):
        t1.expectation(square, q, estimator=ScoreFunction("optimal"))


def test_a_support_that_nobody_can_look_at_is_refused() -> None:
    base = D.Dirichlet(torch.ones(3))
    q = D.TransformedDistribution(base, [D.AffineTransform(0.0, POSITIVE, event_dim=1)])
    with pytest.raises(EstimatorError, match=r"may move with a parameter, which cannot be told"):
        t1.expectation(lambda x: x.sum(-1), q, estimator=LeaveOneOut())


class WithoutLogProb(D.Distribution):
    """Samples and nothing else."""

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    support = constraints.real  # pyright: ignore

    def sample(self, sample_shape: torch.Size) -> Tensor:  # pyright: ignore
        return torch.zeros(sample_shape)


def test_no_density_no_score() -> None:
    with pytest.raises(EstimatorError, match=r"has no log_prob; use Pathwise\(\)"):
        t1.expectation(square, WithoutLogProb(validate_args=False), estimator=LeaveOneOut())


class WithoutSupport(D.Normal):
    """A distribution whose author named no support."""

    @property
    def support(self) -> constraints.Constraint:  # pyright: ignore
        raise NotImplementedError


def test_a_refusal_never_raises_anything_else() -> None:
    q = WithoutSupport(torch.tensor(0.3, requires_grad=True), 1.0, validate_args=False)
    with pytest.raises(
        EstimatorError, match=r"whether it applies to WithoutSupport cannot be told"
    ):
        t1.expectation(square, q, estimator=Pathwise())
    assert t1.expectation(square, q).estimator == "LeaveOneOut"


def test_f_that_changes_its_samples_in_place() -> None:
    with pytest.raises(EstimatorError, match=r"changes its samples in place.*x\.clone\(\)"):
        t1.expectation(lambda x: x.mul_(2), normal(), estimator=LeaveOneOut())


def test_a_derivative_of_f_that_is_nan_is_told() -> None:
    def root(x: Tensor) -> Tensor:
        return torch.where(x > 0, x.sqrt(), torch.zeros_like(x))

    def safe(x: Tensor) -> Tensor:
        return torch.where(x > 0, x.clamp(min=1e-12).sqrt(), torch.zeros_like(x))

    with pytest.warns(EstimatorWarning, match=r"derivative of f is NaN.*clamp") as told:
        t1.expectation(root, normal(), estimator=Pathwise()).backward()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t1.expectation(safe, normal(), estimator=Pathwise()).backward()
        overflow = t1.expectation(safe, normal(), estimator=Pathwise()).value * math.inf
        overflow.backward()  # what came in was spoiled already: loss scaling does that


@pytest.mark.parametrize("estimator", [LeaveOneOut(), Pathwise()], ids=lambda e: e.name)
def test_f_holds_a_parameter_that_make_distribution_is_given(
    estimator: LeaveOneOut | Pathwise,
) -> None:
    m = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    per_sample = t1.gradient_samples(
        lambda x: m * x, lambda a: D.Normal(a, 1.0), m, estimator=estimator, n_samples=20_000,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    # E m x = m², of which make_distribution's part alone is m
    stderr = per_sample.std().item() / 20_000**0.5
    assert stderr < 0.05
    assert abs(per_sample.mean().item() - 1.4) <= 4.5 * stderr
    assert m.grad is None


@pytest.mark.parametrize(
    "make", [lambda a: D.Beta(a, a), lambda a: D.Dirichlet(torch.stack([a, a]))], ids=["B", "D"]
)
def test_the_second_derivative_of_a_once_differentiable_path(
    make: Callable[[Tensor], D.Distribution],
) -> None:
    a = torch.tensor(2.0, requires_grad=True)
    e = t1.expectation(lambda x: x.flatten(1).sum(1) if x.dim() > 1 else x, make(a))
    (first,) = torch.autograd.grad(e.value, a, create_graph=True)
    with pytest.raises(EstimatorError, match="defines first derivatives only"):
        torch.autograd.grad(first, a)
