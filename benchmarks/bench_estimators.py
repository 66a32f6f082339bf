"""Gradient estimators against hand-written torch, Pyro and Storchastic: one JSON line a version.

10 000 samples × 100 dimensions, f = ‖x‖², gradient by µ, one thread. Every turn runs every version
once, in an order of its own; CPU time, so that other work on the machine is not counted; the ratio
is the median over turns of ours by the best hand-written version in the same turn, and by the one
that is written with ``torch.distributions``, as ours is.

Run: ``python benchmarks/bench_estimators.py`` (about half a minute; ``--repeats 10`` for a short
run; ``--samples 64 --dimensions 10 --repeats 1000`` for what a call costs by itself). Pyro and
Storchastic join when they are installed.
"""

import argparse
import importlib.util
import logging
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from origin import record
from torch import Tensor
from torch.distributions import Independent, Normal

import thetaone as t1
from thetaone.estimators import LeaveOneOut, Pathwise, ScoreFunction


@dataclass(frozen=True)
class Problem:
    """Samples and parameters of a Gaussian."""

    n: int
    mu: Tensor
    sigma: Tensor

    def distribution(self) -> Independent:
        return Independent(Normal(self.mu, self.sigma), 1)

    def noise(self) -> Tensor:
        return torch.randn(self.n, len(self.mu))


def f(x: Tensor) -> Tensor:
    return (x * x).sum(-1)


def ours(p: Problem, estimator: object) -> Callable[[], None]:
    def run() -> None:
        t1.expectation(f, p.distribution(), estimator=estimator, n_samples=p.n).backward()

    return run


def torch_score(p: Problem) -> None:
    q = p.distribution()
    x = q.sample((p.n,))
    (f(x) * q.log_prob(x)).mean().backward()


def torch_leave_one_out(p: Problem) -> None:
    q = p.distribution()
    x = q.sample((p.n,))
    values = f(x)
    baseline = (values.sum() - values) / (p.n - 1)
    ((values - baseline) * q.log_prob(x)).mean().backward()


def closed_form(p: Problem, *, leave_one_out: bool) -> Callable[[], None]:
    """The best by hand: noise kept, no autograd, ∂µ = (c @ ε)/(Nσ)."""

    def run() -> None:
        with torch.no_grad():
            noise = p.noise()
            values = f(p.mu + p.sigma * noise)
            if leave_one_out:
                values = (values - values.mean()) * (p.n / (p.n - 1))
            gradient = values @ noise / (p.n * p.sigma)
        p.mu.grad = gradient

    return run


def torch_pathwise(p: Problem) -> None:
    f(p.mu + p.sigma * p.noise()).mean().backward()


def torch_pathwise_rsample(p: Problem) -> None:
    f(p.distribution().rsample((p.n,))).mean().backward()


def storchastic(p: Problem, method: str) -> Callable[[], None]:
    import storch
    from storch.method import Reparameterization, ScoreFunction

    baseline = "batch_average" if method == "leave-one-out" else None

    def run() -> None:
        if method == "pathwise":
            sampler = Reparameterization("x", n_samples=p.n)
        else:
            sampler = ScoreFunction("x", n_samples=p.n, baseline_factory=baseline)
        x = sampler(p.distribution())
        storch.add_cost((x * x).sum(-1), "cost")
        storch.backward()

    return run


def pyro_elbo(p: Problem, method: str) -> Callable[[], None]:
    import pyro
    import pyro.distributions as dist
    from pyro.distributions.testing.fakes import NonreparameterizedNormal
    from pyro.infer import Trace_ELBO

    kind = dist.Normal if method == "pathwise" else NonreparameterizedNormal
    elbo = Trace_ELBO(num_particles=p.n, vectorize_particles=True, max_plate_nesting=0)

    def model() -> None:
        with torch.no_grad():
            loc = p.mu.clone()
        x = pyro.sample("x", kind(loc, p.sigma).to_event(1))
        pyro.factor("f", -f(x))

    def guide() -> None:
        pyro.sample("x", kind(p.mu, p.sigma).to_event(1))

    def run() -> None:
        elbo.differentiable_loss(model, guide).backward()

    return run


def versions(p: Problem) -> dict[tuple[str, str], Callable[[], None]]:
    table: dict[tuple[str, str], Callable[[], None]] = {
        ("score", "thetaone"): ours(p, ScoreFunction()),
        ("score", "torch, log_prob"): partial(torch_score, p),
        ("score", "torch, closed form"): closed_form(p, leave_one_out=False),
        ("leave-one-out", "thetaone"): ours(p, LeaveOneOut()),
        ("leave-one-out", "torch, log_prob"): partial(torch_leave_one_out, p),
        ("leave-one-out", "torch, closed form"): closed_form(p, leave_one_out=True),
        ("pathwise", "thetaone"): ours(p, Pathwise()),
        ("pathwise", "torch"): partial(torch_pathwise, p),
        ("pathwise", "torch, rsample"): partial(torch_pathwise_rsample, p),
    }
    if importlib.util.find_spec("storch"):
        for method in ("score", "leave-one-out", "pathwise"):
            table[method, "storchastic"] = storchastic(p, method)
    if importlib.util.find_spec("pyro"):
        for method in ("score", "pathwise"):
            table[method, "pyro"] = pyro_elbo(p, method)
    return table


def measure(p: Problem, table: dict[tuple[str, str], Callable[[], None]], repeats: int) -> None:
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in table}
    order, chance = list(table), random.Random(0)
    for turn in range(repeats + 3):
        chance.shuffle(order)
        for key in order:
            p.mu.grad = None
            start = time.process_time()
            table[key]()
            if turn >= 3:  # the first turns warm up
                seconds[key].append(time.process_time() - start)
    for method, name in table:
        by_hand = [key for key in table if key[0] == method and key[1].startswith("torch")]
        best = min(by_hand, key=lambda key: statistics.median(seconds[key]))
        alike = (method, "torch, rsample" if method == "pathwise" else "torch, log_prob")
        own = seconds[method, name]
        low, middle, high = statistics.quantiles(ratios(own, seconds[best]), n=4)
        case = {
            "method": method, "version": name, "samples": p.n, "dimensions": len(p.mu),
            "dtype": "float32", "device": "cpu", "threads": 1,
        }  # fmt: skip
        figures = {
            "repeats": repeats, "min_ms": round(min(own) * 1e3, 3),
            "median_ms": round(statistics.median(own) * 1e3, 3), "best_by_hand": best[1],
            "ratio": round(middle, 3), "ratio_quartiles": [round(low, 3), round(high, 3)],
            "ratio_to_distributions": round(statistics.median(ratios(own, seconds[alike])), 3),
        }  # fmt: skip
        record("estimators", case, figures)


def ratios(own: list[float], its: list[float]) -> list[float]:
    return [mine / other for mine, other in zip(own, its, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # of the other libraries
    mu = torch.full((options.dimensions,), 0.1, requires_grad=True)
    problem = Problem(options.samples, mu, torch.ones(options.dimensions))
    measure(problem, versions(problem), options.repeats)


if __name__ == "__main__":
    main()
