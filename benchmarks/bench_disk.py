"""Training step with a disk tier, beside the same schedule with transfers in the foreground.

Budgets lie between the least peak of any schedule in memory alone and twice that, on a chain of
transformer blocks. One run, one thread of computing, rounds of all schemes in random order after a
warm-up; wall seconds, as transfers wait and do not compute. ``plan`` is what the schedule promises
for this machine, by its profile and by the speeds that the tier measured; store-all is beside it to
show how far a profile's sum is from a step. Gradients of all schemes are compared bit by bit.

Run: ``python benchmarks/bench_disk.py --directory /scratch`` (about two minutes).
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import torch
from bench_rematerialization import Block, gradients, mib, spread, timed
from origin import record
from torch import Tensor, nn

from thetaone.rematerialization import (
    Answer,
    DiskTier,
    Planner,
    TrainingMemory,
    plan,
    profile,
    rematerialize,
    store_all,
)


class Foreground(DiskTier):
    """Every transfer is waited for."""

    def submit(self, job: Any, *given: Any) -> Answer:
        answer = Answer()
        answer.put(job(*given))
        return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", default=None)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--depth", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(*[Block(options.width, 4) for _ in range(options.depth)])
    x, weights = torch.randn(2, 2, options.length, options.width).unbind()
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        background = DiskTier(place)
        foreground = Foreground(place, cost=background.cost)
        chain = profile(model, x)
        floor = Planner(chain).floor_bytes
        schemes: dict[str, Any] = {"store-all": model}
        promised = {"store-all": store_all(chain).total_seconds}
        peaks: dict[str, int] = {}
        budgets: dict[str, int] = {}
        for share in (1.0, 1.25, 1.5, 2.0):
            budget = int(share * floor)
            helped, alone = plan(chain, budget, disk=background), plan(chain, budget)
            for name, schedule, tier in (
                ("memory alone", alone, None),
                ("disk in the background", helped, background),
                ("disk in the foreground", helped, foreground),
            ):
                label = f"{name}, {share:g} × floor"
                schemes[label] = rematerialize(nn.Sequential(*model), schedule, disk=tier)
                promised[label], budgets[label] = schedule.total_seconds, budget
        expected = gradients(model, partial(step, model, x, weights))
        for name, forward in schemes.items():
            found = gradients(model, partial(step, forward, x, weights))
            assert all(map(torch.equal, found, expected)), f"{name}: other gradients"
            with TrainingMemory(model) as memory:
                step(forward, x, weights)
            peaks[name] = memory.activation_peak_bytes
            assert peaks[name] <= budgets.get(name, peaks[name]), name
        seconds = timed(
            schemes, lambda forward: step(forward, x, weights), options.repeats, time.perf_counter
        )
        shapes = {"threads": 1, "depth": options.depth, "shape": list(x.shape)}
        speeds = {
            "repeats": options.repeats,
            "write_mb_s": round(background.cost.write_bytes_per_second / 1e6),
            "read_mb_s": round(background.cost.read_bytes_per_second / 1e6),
        }  # fmt: skip
        for name, found in seconds.items():
            line = {
                "budget_mib": mib(budgets.get(name, 0)),
                "peak_mib": mib(peaks[name]), **spread(found),
                "planned_s": round(promised[name], 4),
                "measured_to_plan": round(statistics.median(found) / promised[name], 4),
            }  # fmt: skip
            if name.startswith("disk in the background"):
                slow = seconds[name.replace("background", "foreground")]
                line["to_foreground"] = paired(found, slow)
                line["to_memory_alone"] = paired(
                    found, seconds[name.replace("disk in the background", "memory alone")]
                )
            record("disk", shapes | {"scheme": name}, speeds | line)


def step(forward: Any, x: Tensor, weights: Tensor) -> None:
    (forward(x) * weights).sum().backward()  # nobody holds the chain's output meanwhile


def paired(mine: list[float], other: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(mine, other, strict=True)), 4)


if __name__ == "__main__":
    main()
