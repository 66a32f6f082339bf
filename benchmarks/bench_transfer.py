"""Does the rate transfer, and what does finding it cost? JSON lines.

``drift``: the best learning rate of every width, 64 to 1024, on a half-octave grid with three
seeds, in µP and in SP. ``cost``: the sweep that `transfer` runs at two small widths against the
same grid at the target (16 × base), interleaved: wall time, counted FLOPs, and the target's loss at
the transferred rate against the best of the grid there.

Run: ``python benchmarks/bench_transfer.py`` (about ten minutes on two quiet cores).
"""

import argparse
import json
import math
import statistics
import subprocess
from typing import Any

import torch

import thetaone as t1

WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2)
SMALL, TARGET = (64, 128), 1024


def commit() -> str:
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"


def show(kind: str, **fields: Any) -> None:
    where = {"commit": commit(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    print(json.dumps({"benchmark": kind, **where, **fields}), flush=True)


def drift(task: str, lrs: list[float], steps: int) -> None:
    for rule in ("mup", "sp"):
        found = t1.sweep(
            task, widths=WIDTHS, lrs=lrs, seeds=SEEDS, steps=steps, parametrization=rule,
            optimizer=torch.optim.Adam,
        )  # fmt: skip
        assert found.drift is not None
        show(
            "drift", task=task, parametrization=rule, steps=steps, seeds=len(SEEDS),
            best_log2_lr={width: round(best.log2_lr, 3) for width, best in found.optima.items()},
            loss={width: round(best.loss, 5) for width, best in found.optima.items()},
            octaves=round(found.drift.octaves, 3),
            interval=[round(end, 3) for end in found.drift.interval],
            at_edge=found.drift.bounded_only, wall_seconds=round(found.wall_seconds, 1),
        )  # fmt: skip


def cost(task: str, lrs: list[float], steps: int, repeats: int) -> None:
    common: dict[str, Any] = {
        "seeds": SEEDS, "steps": steps, "optimizer": torch.optim.Adam, "base_width": SMALL[0],
    }  # fmt: skip
    pairs = [
        (
            t1.sweep(task, widths=SMALL, lrs=lrs, **common),
            t1.sweep(task, widths=[TARGET], lrs=lrs, **common),
        )
        for _ in range(repeats)
    ]
    small, direct = pairs[0]
    rate = 2.0 ** small.optima[SMALL[-1]].log2_lr
    at_rate = t1.sweep(task, widths=[TARGET], lrs=[rate], **common)
    loss = statistics.fmean(at_rate.final_losses(TARGET)[rate])
    best = min(statistics.fmean(v) for v in direct.final_losses(TARGET).values())
    flops = [math.fsum(t.cost_flops for t in found.trials) for found in (small, direct)]
    ratios = [d.wall_seconds / s.wall_seconds for s, d in pairs]
    show(
        "cost", task=task, steps=steps, seeds=len(SEEDS), rates=len(lrs), widths=SMALL,
        target=TARGET, engines=[small.engine.engine, direct.engine.engine],
        small_seconds=[round(s.wall_seconds, 2) for s, _ in pairs],
        direct_seconds=[round(d.wall_seconds, 2) for _, d in pairs],
        times_less_time=round(statistics.median(ratios), 1),
        times_less_compute=round(flops[1] / flops[0], 1),
        log2_rate=round(math.log2(rate), 3), loss_at_rate=round(loss, 5),
        best_loss_of_direct_grid=round(best, 5), excess=round(loss / best - 1, 4),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="digits")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--from-power", type=float, default=-12)
    parser.add_argument("--to-power", type=float, default=-3)
    options = parser.parse_args()
    halves = round(2 * (options.to_power - options.from_power)) + 1
    lrs = [2.0 ** (options.from_power + index / 2) for index in range(halves)]
    drift(options.task, lrs, options.steps)
    cost(options.task, lrs, options.steps, options.repeats)


if __name__ == "__main__":
    main()
