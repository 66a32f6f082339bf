"""Gradient estimators at 10 000 samples × 100 dimensions beside the best written by hand."""

from collections.abc import Callable
from typing import Any

import torch
from row import Step, interleaved, median_ms, paired_ratio, run
from torch import Tensor
from torch.distributions import Independent, Normal

import thetaone as t1


def f(x: Tensor) -> Tensor:
    return (x * x).sum(-1)


def measure(device: torch.device, *, toy: bool) -> dict[str, Any]:
    n, d = (1000, 10) if toy else (10_000, 100)
    mu = torch.full((d,), 0.1, device=device, requires_grad=True)
    sigma = torch.ones(d, device=device)

    def ours(estimator: object) -> Step:
        def step() -> None:
            q = Independent(Normal(mu, sigma), 1)
            t1.expectation(f, q, estimator=estimator, n_samples=n).backward()

        return step

    figures: dict[str, Any] = {"samples": n, "dimensions": d}
    methods: dict[str, tuple[object, Step]] = {
        "score": (t1.estimators.ScoreFunction(), by_hand(mu, sigma, n, weigh=lambda v: v)),
        "leave-one-out": (
            t1.estimators.LeaveOneOut(),
            by_hand(mu, sigma, n, weigh=lambda v: (v - v.mean()) * (n / (n - 1))),
        ),
        "pathwise": (t1.estimators.Pathwise(), pathwise(mu, sigma, n)),
    }
    for name, (estimator, hand) in methods.items():
        steps = {"ours": ours(estimator), "by hand": hand}
        seconds = interleaved(steps, device, rounds=10 if toy else 100)
        figures[name] = {
            "ours_ms": median_ms(seconds["ours"]), "by_hand_ms": median_ms(seconds["by hand"]),
            "ratio": paired_ratio(seconds["ours"], seconds["by hand"]),
        }  # fmt: skip
    return figures


def by_hand(mu: Tensor, sigma: Tensor, n: int, *, weigh: Callable[[Tensor], Tensor]) -> Step:
    """Noise kept, no autograd: ∂µ = (weights @ ε)/(nσ)."""

    def step() -> None:
        with torch.no_grad():
            noise = torch.randn(n, len(mu), device=mu.device)
            mu.grad = weigh(f(mu + sigma * noise)) @ noise / (n * sigma)

    return step


def pathwise(mu: Tensor, sigma: Tensor, n: int) -> Step:
    def step() -> None:
        f(mu + sigma * torch.randn(n, len(mu), device=mu.device)).mean().backward()

    return step


if __name__ == "__main__":
    run(measure)
