"""Tune a black box by evolution strategies: regularization of ridge regression, no derivatives.

The validation error of a ridge regression is a black box of the logarithms of one penalty for each
group of features. Run: ``python examples/black_box_tuning.py``.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.distributions import Independent, Normal

import thetaone as t1
from thetaone.estimators import EvolutionStrategies


def validation_error(log_penalty: Tensor) -> float:
    """Mean squared error on held-out patients; log10 penalties of two groups of features."""
    x, y = load_diabetes(return_X_y=True)
    x, y = x / x.std(0), (y - y.mean()) / y.std()
    penalty = 10.0 ** np.repeat(log_penalty.numpy(), 5)
    fit, held = slice(0, 60), slice(60, None)
    weights = np.linalg.solve(x[fit].T @ x[fit] + np.diag(penalty), x[fit].T @ y[fit])
    return float(((x[held] @ weights - y[held]) ** 2).mean())


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("black_box_tuning.png"))
    options = parser.parse_args(arguments)
    g = torch.Generator().manual_seed(0)
    loc = torch.tensor([4.0, 4.0], requires_grad=True)
    optimizer = torch.optim.Adam([loc], lr=0.15)
    errors = [validation_error(loc.detach())]
    for _ in range(options.steps):
        e = t1.expectation(
            validation_error, Independent(Normal(loc, 0.3), 1), vectorized=False,
            estimator=EvolutionStrategies("antithetic"), n_samples=8, generator=g,
        )  # fmt: skip
        optimizer.zero_grad()
        e.backward()
        optimizer.step()
        errors.append(validation_error(loc.detach()))
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot(errors)
    axes.set(xlabel="step", ylabel="validation error")
    figure.savefig(options.out, dpi=120)
    plt.close(figure)
    print(f"validation error {errors[0]:.3f} -> {errors[-1]:.3f} at log10 penalties {loc.tolist()}")
    return errors[0], errors[-1]


if __name__ == "__main__":
    main()
