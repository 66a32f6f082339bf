"""A VAE on scikit-learn's digits: Gaussian latents by pathwise, binary latents three ways.

Run: ``python examples/vae_digits.py`` (about a minute).
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

import thetaone as t1
from thetaone.estimators import RELAX, DisARM, Estimator, GumbelSoftmax, LeaveOneOut, Pathwise

LATENTS = 16


def network(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, 64), nn.Tanh(), nn.Linear(64, n_out))


def gaussian(code: Tensor) -> Distribution:
    loc, log_scale = code.chunk(2, -1)
    return Independent(Normal(loc, log_scale.exp()), 1)


def binary(code: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=code), 1)


def elbo(decoder: nn.Module, x: Tensor, q: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """log p(x|z) + log p(z) − log q(z|x), ``[n, batch]``; relaxed z only through the decoder."""
    fit = -nn.functional.binary_cross_entropy_with_logits(
        decoder(z), x.expand(z.shape[0], *x.shape), reduction="none"
    ).sum(-1)
    return fit - torch.distributions.kl_divergence(q, prior)


def train(estimator: Estimator, *, steps: int, seed: int = 0) -> tuple[list[float], float]:
    """What was maximized at every step, and the true ELBO in the end, in nats an image.

    Gumbel-softmax maximizes a relaxed objective; in the end every latent is a hard sample.
    """
    g = torch.Generator().manual_seed(seed)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    is_gaussian = estimator.name == "Pathwise"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = network(64, LATENTS * (2 if is_gaussian else 1))
        decoder = network(LATENTS, 64)
    make = gaussian if is_gaussian else binary
    prior = make(torch.zeros(64, LATENTS * (2 if is_gaussian else 1)))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    curve: list[float] = []
    for _ in range(steps):
        x = images[torch.randint(len(images), (64,), generator=g)]
        q = make(encoder(x))
        e = t1.expectation(
            lambda z, x=x, q=q: elbo(decoder, x, q, prior, z), q, estimator=estimator,
            n_samples=2, generator=g,
        )  # fmt: skip
        loss = -e.value.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(-loss.item())
    with torch.no_grad():
        q = make(encoder(images))
        prior = make(torch.zeros_like(encoder(images)))
        final = t1.expectation(
            lambda z: elbo(decoder, images, q, prior, z), q, estimator=LeaveOneOut(),
            n_samples=16, generator=g,
        )  # fmt: skip
    return curve, final.value.mean().item()


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("vae_digits.png"))
    options = parser.parse_args(arguments)
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    curves: dict[str, list[float]] = {}
    for estimator in (
        Pathwise(),
        DisARM(),
        RELAX(),
        GumbelSoftmax(0.5),
    ):
        curves[estimator.name], final = train(estimator, steps=options.steps)
        window = min(50, options.steps)
        smooth = torch.tensor(curves[estimator.name]).unfold(0, window, 1).mean(1)
        kind = "Gaussian" if estimator.name == "Pathwise" else "binary"
        biased = "" if estimator.unbiased else " (biased)"
        axes.plot(smooth, label=f"{kind}, {estimator.name}{biased}: ELBO {final:.1f}")
        print(f"{kind} latents, {estimator.name}: ELBO {final:.2f} ({estimator.declared})")
    axes.set(xlabel="step", ylabel="what is maximized [nats an image]", ylim=(-45, -20))
    axes.legend()
    figure.savefig(options.out, dpi=120)
    plt.close(figure)
    return curves


if __name__ == "__main__":
    main()
