"""What f holds, once-differentiable backwards, state, groups: one gradient in every verb."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D

import thetaone as t1
from thetaone.errors import InputError
from thetaone.estimators import (
    VIMCO,
    Estimator,
    LeaveOneOut,
    MovingAverage,
    Pathwise,
    ScoreFunction,
)
from thetaone.records import ProgressEvent

HELD = torch.tensor([1.5, 2.0, 0.7], dtype=torch.float64)


def dirichlet_problem() -> tuple[Tensor, Callable[[Tensor], Tensor], Tensor]:
    """Parameters a, f = Σ a_i x_i that holds them, ∇ Σ a² / Σ a."""
    a = HELD.clone().requires_grad_()
    (truth,) = torch.autograd.grad((a * a).sum() / a.sum(), a)
    return a, lambda x: (a * x).sum(-1), truth


@pytest.mark.parametrize("estimator", [Pathwise(), LeaveOneOut()], ids=lambda e: e.name)
def test_f_that_holds_the_parameters(estimator: Estimator) -> None:
    a, f, truth = dirichlet_problem()
    options: dict[str, Any] = {"estimator": estimator, "n_samples": 400}
    rows = t1.gradient_samples(
        f, lambda: D.Dirichlet(a), [a], generator=torch.Generator().manual_seed(1), **options
    )[0]
    e = t1.expectation(f, D.Dirichlet(a), generator=torch.Generator().manual_seed(1), **options)
    (whole,) = torch.autograd.grad(e.value, a)
    torch.testing.assert_close(rows.mean(0), whole)
    comparison = t1.compare_estimators(
        f, lambda: D.Dirichlet(a), a, estimators=[estimator], repeats=300, reference=truth,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    (row,) = comparison.rows
    assert row.verdict == "agrees"
    torch.testing.assert_close(
        torch.tensor(row.mean, dtype=torch.float64), truth, atol=0.05, rtol=0
    )


class Fixed(D.Normal):
    """A distribution whose author implemented no expand."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> D.Distribution:
        raise NotImplementedError


def test_a_distribution_without_expand() -> None:
    comparison = t1.compare_estimators(
        torch.square, lambda mu: Fixed(mu, 1.0), torch.tensor(0.5, dtype=torch.float64),
        estimators=[Pathwise(), LeaveOneOut(), ScoreFunction(MovingAverage())], repeats=100,
        reference=torch.tensor(1.0), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [row.verdict for row in comparison.rows] == ["agrees"] * 3


def test_an_estimator_with_a_state_is_measured_and_left_as_it_was() -> None:
    average = MovingAverage(0.9)
    average.update(torch.tensor(3.0, dtype=torch.float64))
    comparison = t1.compare_estimators(
        lambda x: (x**2).sum(-1), lambda mu: D.Independent(D.Normal(mu, 1.0), 1),
        torch.full((2,), 0.5, dtype=torch.float64), estimators=[ScoreFunction(average)],
        repeats=300, reference=torch.ones(2), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert comparison.rows[0].verdict == "agrees"
    assert average.value is not None
    assert average.value.item() == 3.0


def test_vimco_is_judged_on_its_bound() -> None:
    table = torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)
    options: dict[str, Any] = {"repeats": 2000, "generator": torch.Generator().manual_seed(0)}
    logits = torch.tensor([0.1, 0.4, -0.2], dtype=torch.float64)

    def f(k: Tensor) -> Tensor:
        return table[k]

    comparison = t1.compare_estimators(
        f, lambda logits: D.Categorical(logits=logits), logits, estimators=[VIMCO(3)], **options
    )
    assert comparison.reference_kind == "enumeration"
    assert comparison.rows[0].verdict == "agrees"
    # the truth, written out: all 27 groups
    theta = logits.clone().requires_grad_()
    p = theta.softmax(0)
    groups = torch.cartesian_prod(*[torch.arange(3)] * 3)
    bound = (p[groups].prod(1) * table[groups].exp().mean(1).log()).sum()
    (truth,) = torch.autograd.grad(bound, theta)
    torch.testing.assert_close(torch.tensor(comparison.reference, dtype=torch.float64), truth)
    mixed = t1.compare_estimators(
        f, lambda logits: D.Categorical(logits=logits), logits,
        estimators=[VIMCO(3), LeaveOneOut()], **options,
    )  # fmt: skip
    assert dict(mixed.skipped)["VIMCO(3)"].endswith("compare it by itself")


def test_one_estimators_error_is_its_own() -> None:
    table = torch.tensor([1.0, 3.0], dtype=torch.float64)

    def f(b: Tensor) -> Tensor:
        return table[b.long()] if bool((b == b.round()).all()) else table[b]  # no relaxed index

    comparison = t1.compare_estimators(
        f, lambda p: D.Bernoulli(p), torch.tensor(0.3, dtype=torch.float64), repeats=50,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert "IndexError" in dict(comparison.skipped)["REBAR(τ=0.5, η=1)"]
    assert comparison.row("LeaveOneOut").verdict == "agrees"


@pytest.mark.parametrize("budget", [3000, 20_000])
def test_a_budget_of_evaluations_is_kept(budget: int) -> None:
    calls = [0]
    events: list[ProgressEvent] = []

    def f(x: Tensor) -> Tensor:
        calls[0] += x.shape[0]
        return x**2

    comparison = t1.compare_estimators(
        f, lambda mu: D.Normal(mu, 1.0), torch.tensor(0.5, dtype=torch.float64),
        estimators=[Pathwise(), LeaveOneOut()], n_samples=8, budget=budget, progress=events.append,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert 0.5 * budget < calls[0] <= budget
    assert [event.n_done for event in events] == [1, 2]
    assert not any(row.verdict == "biased" for row in comparison.rows)
    with pytest.raises(InputError, match=r"budget=20: 2 estimators of 8 samples take 16 evaluat"):
        t1.compare_estimators(
            f, lambda mu: D.Normal(mu, 1.0), torch.tensor(0.5), estimators=comparison_pair(),
            n_samples=8, budget=20,
        )  # fmt: skip


def comparison_pair() -> list[Estimator]:
    return [Pathwise(), LeaveOneOut()]


@pytest.mark.float32
def test_where_the_score_is_off_nothing_from_it_is_believed() -> None:
    comparison = t1.compare_estimators(
        lambda x: x,
        lambda logit: D.RelaxedBernoulli(torch.tensor(0.2), logits=logit), torch.tensor(3.0),
        estimators=[Pathwise(), LeaveOneOut()], repeats=500, reference_samples=100_000,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert comparison.row("LeaveOneOut").verdict == "score not centred"
    assert comparison.row("Pathwise").verdict == "agrees"
    assert comparison.reference_kind.startswith("Pathwise")
    assert comparison.recommendation == "Pathwise"
    assert not comparison.passed
    assert "logit is not 0" in comparison.score_check
    assert any("not independent of pathwise" in flag for flag in comparison.flags)


def test_without_any_reference_nothing_is_claimed() -> None:
    # the score is off, and torch has no path for this distribution
    class Lagged(D.VonMises):
        def sample(self, sample_shape: Any = ()) -> Tensor:
            return super().sample(sample_shape) * 0.5

    comparison = t1.compare_estimators(
        torch.cos, lambda k: Lagged(torch.zeros((), dtype=torch.float64), k),
        torch.tensor(2.0, dtype=torch.float64), estimators=[LeaveOneOut()], repeats=50,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert comparison.reference_kind == "none"
    assert comparison.row("LeaveOneOut").verdict == "score not centred"
    assert comparison.recommendation == ""
