"""Does the rate transfer, and what does finding it cost? JSON lines.

``drift``: the best learning rate of every width, 64 to 1024, on a half-octave grid with three
seeds, in µP and in SP. ``cost``: the sweep that `transfer` runs at two small widths against the
same grid at the target, interleaved: wall time, counted FLOPs, and the target's loss at
the transferred rate against the best of the grid there.

Run: ``python benchmarks/bench_transfer.py`` (about ten minutes on two quiet cores).
"""

import argparse
import math
import statistics
from typing import Any

import torch
from origin import record

import thetaone as t1
from thetaone.sweeps import parse_lrs

WIDTHS = (64, 128, 256, 512, 1024)


def drift(task: str, lrs: list[float], steps: int, seeds: range) -> None:
    for rule in ("mup", "sp"):
        found = t1.sweep(
            task, widths=WIDTHS, lrs=lrs, seeds=seeds, steps=steps, parametrization=rule,
            optimizer=torch.optim.Adam,
        )  # fmt: skip
        assert found.drift is not None
        case = {
            "kind": "drift", "task": task, "parametrization": rule, "steps": steps,
            "seeds": len(seeds), "threads": torch.get_num_threads(),
        }  # fmt: skip
        figures = {
            "best_log2_lr": {width: round(best.log2_lr, 3) for width, best in found.optima.items()},
            "loss": {width: round(best.loss, 5) for width, best in found.optima.items()},
            "octaves": round(found.drift.octaves, 3),
            "interval": [round(end, 3) for end in found.drift.interval],
            "at_edge": found.drift.bounded_only, "wall_seconds": round(found.wall_seconds, 1),
        }  # fmt: skip
        record("transfer", case, figures)


def cost(
    task: str, lrs: list[float], steps: int, seeds: range, small: list[int], target: int,
    repeats: int,
) -> None:  # fmt: skip
    common: dict[str, Any] = {
        "seeds": seeds, "steps": steps, "optimizer": torch.optim.Adam, "base_width": small[0],
    }  # fmt: skip
    pairs = [
        (
            t1.sweep(task, widths=small, lrs=lrs, **common),
            t1.sweep(task, widths=[target], lrs=lrs, **common),
        )
        for _ in range(repeats)
    ]
    tuned, direct = pairs[0]
    rate = 2.0 ** tuned.optima[small[-1]].log2_lr
    at_rate = t1.sweep(task, widths=[target], lrs=[rate], **common)
    loss = statistics.fmean(at_rate.final_losses(target)[rate])
    best = min(statistics.fmean(v) for v in direct.final_losses(target).values())
    flops = [math.fsum(t.cost_flops for t in found.trials) for found in (tuned, direct)]
    ratios = [d.wall_seconds / s.wall_seconds for s, d in pairs]
    case = {
        "kind": "cost", "task": task, "steps": steps, "seeds": len(seeds), "rates": len(lrs),
        "widths": small, "target": target, "threads": torch.get_num_threads(),
    }  # fmt: skip
    figures = {
        "engines": [tuned.engine.engine, direct.engine.engine],
        "small_seconds": [round(s.wall_seconds, 2) for s, _ in pairs],
        "direct_seconds": [round(d.wall_seconds, 2) for _, d in pairs],
        "times_less_time": round(statistics.median(ratios), 1),
        "times_less_compute": round(flops[1] / flops[0], 1),
        "log2_rate": round(math.log2(rate), 3), "loss_at_rate": round(loss, 5),
        "best_loss_of_direct_grid": round(best, 5), "excess": round(loss / best - 1, 4),
    }  # fmt: skip
    record("transfer", case, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="digits")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lrs", default="2^-12:2^-3:0.5", help="as `thetaone sweep` takes them")
    parser.add_argument("--small", default="64,128", help="widths at which the rate is found")
    parser.add_argument("--target", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("drift", "cost"))
    options = parser.parse_args()
    lrs, seeds = list(parse_lrs(options.lrs)), range(options.seeds)
    if options.only != "cost":
        drift(options.task, lrs, options.steps, seeds)
    if options.only != "drift":
        small = [int(width) for width in options.small.split(",")]
        cost(options.task, lrs, options.steps, seeds, small, options.target, options.repeats)


if __name__ == "__main__":
    main()
