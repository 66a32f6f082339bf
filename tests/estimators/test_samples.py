"""``gradient_samples``: rows whose mean is the gradient of ``expectation``."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D

import thetaone as t1
from thetaone.estimators import LeaveOneOut, Pathwise, ScoreFunction
from thetaone.estimators._gradient_samples import jacobian


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def f(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


MU = torch.tensor([0.3, -0.2], dtype=torch.float64)
SIGMA = torch.tensor(0.8, dtype=torch.float64)


@pytest.mark.parametrize(
    "estimator",
    [ScoreFunction(), LeaveOneOut(), Pathwise()],
    ids=lambda e: e.name,
)
@pytest.mark.parametrize("n_samples", [2, 50])  # fewer rows than parameters, and more
def test_mean_of_rows_is_the_gradient(estimator: LeaveOneOut, n_samples: int) -> None:
    options: dict[str, Any] = {"estimator": estimator, "n_samples": n_samples}
    rows = t1.gradient_samples(f, D.Normal, (MU, SIGMA), generator=generator(), **options)
    mu, sigma = MU.clone().requires_grad_(), SIGMA.clone().requires_grad_()
    t1.expectation(f, D.Normal(mu, sigma), generator=generator(), **options).backward()
    assert [row.shape for row in rows] == [(n_samples, 2), (n_samples,)]
    for row, parameter in zip(rows, (mu, sigma), strict=True):
        torch.testing.assert_close(row.mean(0), parameter.grad)


def test_one_sample_matches_the_formula() -> None:
    x = torch.randn(6, 2, generator=generator(), dtype=torch.float64) * SIGMA + MU
    rows = t1.gradient_samples(
        f, lambda mu: D.Normal(mu, SIGMA), MU, estimator=ScoreFunction(), n_samples=6,
        generator=generator(),
    )  # fmt: skip
    torch.testing.assert_close(rows, f(x)[:, None] * (x - MU) / SIGMA**2)


def test_leave_one_out_is_the_sample_covariance() -> None:
    options: dict[str, Any] = {"n_samples": 20, "generator": generator()}
    rows = t1.gradient_samples(
        f, lambda mu: D.Normal(mu, SIGMA), MU, estimator=LeaveOneOut(), **options
    )
    x = torch.randn(20, 2, generator=generator(), dtype=torch.float64) * SIGMA + MU
    score = (x - MU) / SIGMA**2
    covariance = torch.stack([torch.cov(torch.stack([f(x), s]))[0, 1] for s in score.T])
    torch.testing.assert_close(rows.mean(0), covariance, rtol=1e-13, atol=1e-14)


def test_structures_of_parameters() -> None:
    options: dict[str, Any] = {"n_samples": 3, "estimator": LeaveOneOut()}
    named = t1.gradient_samples(f, D.Normal, {"loc": MU, "scale": SIGMA}, **options)
    assert {name: tuple(rows.shape) for name, rows in named.items()} == {
        "loc": (3, 2), "scale": (3,)
    }  # fmt: skip
    whole = t1.gradient_samples(
        f, lambda p: D.Normal(p["a"], p["b"]), {"a": MU, "b": SIGMA}, **options
    )
    assert set(whole) == {"a", "b"}
    listed = t1.gradient_samples(f, lambda p: D.Normal(p[0], p[1]), [MU, SIGMA], **options)
    assert len(listed) == 2
    held = MU.clone().requires_grad_()
    closed = t1.gradient_samples(f, lambda: D.Normal(held, 1.0), [held], **options)
    assert closed[0].shape == (3, 2)
    assert held.grad is None


def test_jacobian_by_rows_and_by_columns_agree() -> None:
    a = torch.randn(4, dtype=torch.float64, generator=generator(), requires_grad=True)
    weights = torch.randn(9, 4, dtype=torch.float64, generator=generator())
    rows = (weights * a.sin()).sum(1)
    (tall,) = jacobian(rows, [a])
    wide = torch.cat([jacobian(rows[i : i + 3], [a])[0] for i in range(0, 9, 3)])
    torch.testing.assert_close(tall, weights * a.detach().cos())
    torch.testing.assert_close(wide, tall.detach())
