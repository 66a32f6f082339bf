"""Sweep throughput against one-by-one training in plain torch on the same cores: JSON lines.

The baseline is the loop of every tutorial, with torch's own number of threads; the contender is
the local engine with ``engine="auto"``, its measurement included. Interleaved, best of the repeats
of each. Run: ``python benchmarks/bench_sweeps.py`` (about three minutes on two quiet cores).
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import islice

import torch
from origin import record
from torch import nn

from thetaone.records import EngineDecision, TrialSpec
from thetaone.sweeps import Work, grid, run_local
from thetaone.tasks import LoadedTask, load_task


def adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def one_by_one(task: LoadedTask, specs: Sequence[TrialSpec]) -> float:
    started = time.perf_counter()
    for spec in specs:
        torch.manual_seed(spec.seed)
        model = task.model(spec.width)
        optimizer = adam(model, spec.width, spec.lr)
        losses = []
        for batch in islice(task.batches(spec.seed), spec.n_steps):
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return time.perf_counter() - started


def engine(task: LoadedTask, specs: Sequence[TrialSpec]) -> tuple[float, EngineDecision]:
    decisions: list[EngineDecision] = []
    started = time.perf_counter()
    work = Work(task=task, make_optimizer=adam)
    trials = list(run_local(work, specs, decided=decisions.append))
    assert all(trial.status != "failed" for trial in trials)
    return time.perf_counter() - started, decisions[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cases = [
        ("digits", 32, 100), ("digits", 64, 100), ("digits", 128, 100), ("digits", 512, 50),
        ("lm", 32, 20), ("lm", 64, 10), ("lm", 128, 10), ("lm", 256, 5),
    ]  # fmt: skip
    for name, width, steps in cases:
        task = load_task(name)
        specs = grid(
            widths=[width], lrs=task.defaults["lrs"], seeds=task.defaults["seeds"][:2],
            n_steps=steps, parametrization="sp", base_width=width,
        )  # fmt: skip
        one_by_one(task, specs[:1])
        plain, ours, decision = [], [], None
        for _ in range(options.repeats):
            plain.append(one_by_one(task, specs))
            seconds, decision = engine(task, specs)
            ours.append(seconds)
        assert decision is not None
        case = {
            "threads": torch.get_num_threads(), "task": name, "width": width,
            "trials": len(specs), "steps": steps,
        }  # fmt: skip
        figures = {
            "repeats": options.repeats, "engine": decision.engine, "stacks": decision.stacks,
            "plain_seconds": round(min(plain), 3), "engine_seconds": round(min(ours), 3),
            "plain_median": round(statistics.median(plain), 3),
            "engine_median": round(statistics.median(ours), 3),
            "speedup": round(min(plain) / min(ours), 2),
            "speedup_median": round(statistics.median(plain) / statistics.median(ours), 2),
        }  # fmt: skip
        record("sweeps", case, figures)


if __name__ == "__main__":
    main()
