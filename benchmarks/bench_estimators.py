"""Gradient estimators against hand-written torch, Pyro and Storchastic: one JSON line a version.

10 000 samples × 100 dimensions, f = ‖x‖², gradient by µ, one thread. Every turn runs every version
once, in an order of its own; CPU time, so that other work on the machine is not counted; the ratio
is the median over turns of ours by the best hand-written version in the same turn.

Run: ``python benchmarks/bench_estimators.py`` (about half a minute; ``--repeats 10`` for a short
run). Pyro and Storchastic join when they are installed.
"""

import argparse
import importlib.util
import logging
import random
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from origin import record
from torch import Tensor
from torch.distributions import Independent, Normal

import thetaone as t1
from thetaone.estimators import LeaveOneOut, Pathwise, ScoreFunction

N, D = 10_000, 100
MU = torch.full((D,), 0.1, requires_grad=True)
SIGMA = torch.ones(D)


def f(x: Tensor) -> Tensor:
    return (x * x).sum(-1)


def distribution() -> Independent:
    return Independent(Normal(MU, SIGMA), 1)


def ours(estimator: object) -> Callable[[], None]:
    def run() -> None:
        t1.expectation(f, distribution(), estimator=estimator, n_samples=N).backward()

    return run


def torch_score() -> None:
    q = distribution()
    x = q.sample((N,))
    (f(x) * q.log_prob(x)).mean().backward()


def torch_leave_one_out() -> None:
    q = distribution()
    x = q.sample((N,))
    values = f(x)
    baseline = (values.sum() - values) / (N - 1)
    ((values - baseline) * q.log_prob(x)).mean().backward()


def closed_form(*, leave_one_out: bool) -> Callable[[], None]:
    """The best by hand: noise kept, no autograd, ∂µ = (c @ ε)/(Nσ)."""

    def run() -> None:
        with torch.no_grad():
            noise = torch.randn(N, D)
            values = f(MU + SIGMA * noise)
            if leave_one_out:
                values = (values - values.mean()) * (N / (N - 1))
            gradient = values @ noise / (N * SIGMA)
        MU.grad = gradient

    return run


def torch_pathwise() -> None:
    f(MU + SIGMA * torch.randn(N, D)).mean().backward()


def torch_pathwise_rsample() -> None:
    f(distribution().rsample((N,))).mean().backward()


def storchastic(method: str) -> Callable[[], None]:
    import storch
    from storch.method import Reparameterization, ScoreFunction

    baseline = "batch_average" if method == "leave-one-out" else None

    def run() -> None:
        if method == "pathwise":
            sampler = Reparameterization("x", n_samples=N)
        else:
            sampler = ScoreFunction("x", n_samples=N, baseline_factory=baseline)
        x = sampler(distribution())
        storch.add_cost((x * x).sum(-1), "cost")
        storch.backward()

    return run


def pyro_elbo(method: str) -> Callable[[], None]:
    import pyro
    import pyro.distributions as dist
    from pyro.distributions.testing.fakes import NonreparameterizedNormal
    from pyro.infer import Trace_ELBO

    kind = dist.Normal if method == "pathwise" else NonreparameterizedNormal
    elbo = Trace_ELBO(num_particles=N, vectorize_particles=True, max_plate_nesting=0)

    def model() -> None:
        with torch.no_grad():
            loc = MU.clone()
        x = pyro.sample("x", kind(loc, SIGMA).to_event(1))
        pyro.factor("f", -f(x))

    def guide() -> None:
        pyro.sample("x", kind(MU, SIGMA).to_event(1))

    def run() -> None:
        elbo.differentiable_loss(model, guide).backward()

    return run


def versions() -> dict[tuple[str, str], Callable[[], None]]:
    table: dict[tuple[str, str], Callable[[], None]] = {
        ("score", "thetaone"): ours(ScoreFunction()),
        ("score", "torch, log_prob"): torch_score,
        ("score", "torch, closed form"): closed_form(leave_one_out=False),
        ("leave-one-out", "thetaone"): ours(LeaveOneOut()),
        ("leave-one-out", "torch, log_prob"): torch_leave_one_out,
        ("leave-one-out", "torch, closed form"): closed_form(leave_one_out=True),
        ("pathwise", "thetaone"): ours(Pathwise()),
        ("pathwise", "torch"): torch_pathwise,
        ("pathwise", "torch, rsample"): torch_pathwise_rsample,
    }
    if importlib.util.find_spec("storch"):
        for method in ("score", "leave-one-out", "pathwise"):
            table[method, "storchastic"] = storchastic(method)
    if importlib.util.find_spec("pyro"):
        for method in ("score", "pathwise"):
            table[method, "pyro"] = pyro_elbo(method)
    return table


def measure(table: dict[tuple[str, str], Callable[[], None]], repeats: int) -> None:
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in table}
    order, chance = list(table), random.Random(0)
    for turn in range(repeats + 3):
        chance.shuffle(order)
        for key in order:
            MU.grad = None
            start = time.process_time()
            table[key]()
            if turn >= 3:  # the first turns warm up
                seconds[key].append(time.process_time() - start)
    for method, name in table:
        by_hand = [key for key in table if key[0] == method and key[1].startswith("torch")]
        best = min(by_hand, key=lambda key: statistics.median(seconds[key]))
        own = seconds[method, name]
        ratios = [mine / its for mine, its in zip(own, seconds[best], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        case = {
            "method": method, "version": name, "samples": N, "dimensions": D, "dtype": "float32",
            "device": "cpu", "threads": 1,
        }  # fmt: skip
        figures = {
            "repeats": repeats, "min_ms": round(min(own) * 1e3, 2),
            "median_ms": round(statistics.median(own) * 1e3, 2), "best_by_hand": best[1],
            "ratio": round(middle, 3), "ratio_quartiles": [round(low, 3), round(high, 3)],
        }  # fmt: skip
        record("estimators", case, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # of the other libraries
    measure(versions(), options.repeats)


if __name__ == "__main__":
    main()
