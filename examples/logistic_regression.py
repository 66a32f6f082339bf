"""Bayesian logistic regression on breast cancer data: four estimators of the same ELBO.

The setting of Mohamed et al. 2020, §8: a Gaussian posterior over the weights, KL in closed form,
the expected log-likelihood by Monte Carlo. Run: ``python examples/logistic_regression.py``.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn.functional import logsigmoid

import thetaone as t1
from thetaone.estimators import Estimator, LeaveOneOut, MeasureValued, Pathwise, ScoreFunction


def data() -> tuple[Tensor, Tensor]:
    x, y = load_breast_cancer(return_X_y=True)
    features = torch.tensor(x, dtype=torch.float32)
    features = (features - features.mean(0)) / features.std(0)
    ones = torch.ones(len(features), 1)
    return torch.cat([features, ones], 1), torch.tensor(y * 2 - 1, dtype=torch.float32)


def train(estimator: Estimator, *, steps: int, seed: int = 0) -> tuple[list[float], float]:
    """ELBO a data point at every step, and the accuracy of the posterior mean."""
    x, y = data()
    g = torch.Generator().manual_seed(seed)
    loc = torch.zeros(x.shape[1], requires_grad=True)
    log_scale = torch.full_like(loc, -2.0, requires_grad=True)
    prior = Independent(Normal(torch.zeros_like(loc), 1.0), 1)
    optimizer = torch.optim.Adam([loc, log_scale], lr=0.02)
    curve: list[float] = []
    for _ in range(steps):
        batch = torch.randint(len(x), (32,), generator=g)
        signed = x[batch] * y[batch, None]
        posterior = Independent(Normal(loc, log_scale.exp()), 1)

        def log_likelihood(w: Tensor, signed: Tensor = signed) -> Tensor:
            return len(x) * logsigmoid(w @ signed.T).mean(-1)

        e = t1.expectation(
            log_likelihood, posterior, estimator=estimator, n_samples=50, generator=g
        )
        loss = (kl_divergence(posterior, prior) - e.value) / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(-loss.item())
    accuracy = ((x @ loc.detach()).sign() == y).float().mean().item()
    return curve, accuracy


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("logistic_regression.png"))
    options = parser.parse_args(arguments)
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    accuracies: dict[str, float] = {}
    for estimator in (
        Pathwise(),
        MeasureValued(),
        LeaveOneOut(),
        ScoreFunction(),
    ):
        curve, accuracies[estimator.name] = train(estimator, steps=options.steps)
        axes.plot(curve, label=f"{estimator.name}: accuracy {accuracies[estimator.name]:.3f}")
        print(f"{estimator.name}: ELBO {curve[-1]:.3f}, accuracy {accuracies[estimator.name]:.3f}")
    axes.set(xlabel="step", ylabel="ELBO per data point", ylim=(-2, 0))
    axes.legend()
    figure.savefig(options.out, dpi=120)
    plt.close(figure)
    return accuracies


if __name__ == "__main__":
    main()
