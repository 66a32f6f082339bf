"""Does the rate transfer, and what does finding it cost? JSON lines.

``drift``: the best learning rate of every width, 64 to 1024, on a half-octave grid with three
seeds, in µP and in SP. ``cost``: the sweep that `transfer` runs at two small widths, anchored at
the target, against the same grid at the target, which is plain PyTorch; interleaved: wall time,
counted FLOPs, and the target's loss at the transferred rate against the best of the grid there,
seed by seed.

Run: ``python benchmarks/bench_transfer.py`` (about ten minutes on two quiet cores). The transformer
takes about twenty more: ``--only cost --task lm --small 32,64 --target 512 --lrs 2^-12:2^-3:1
--repeats 1``.
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
        "seeds": seeds, "steps": steps, "optimizer": torch.optim.Adam, "base_width": target,
    }  # fmt: skip
    tuned = [t1.sweep(task, widths=small, lrs=lrs, **common)]
    direct = []
    for _ in range(repeats):
        direct.append(t1.sweep(task, widths=[target], lrs=lrs, **common))
        tuned.append(t1.sweep(task, widths=small, lrs=lrs, **common))
    rate = 2.0 ** tuned[0].optima[small[-1]].log2_lr
    at_rate = t1.sweep(task, widths=[target], lrs=[rate], **common)
    losses = at_rate.final_losses(target)[rate]
    best = min(direct[0].final_losses(target).values(), key=statistics.fmean)
    excess = [one / other - 1 for one, other in zip(losses, best, strict=True)]
    flops = [math.fsum(t.cost_flops for t in sweep.trials) for sweep in (tuned[0], direct[0])]
    # Each direct sweep stands between two small ones: a load that comes and goes meets both.
    ratios = [
        2 * there.wall_seconds / (before.wall_seconds + after.wall_seconds)
        for there, before, after in zip(direct, tuned, tuned[1:], strict=False)
    ]
    case = {
        "kind": "cost", "task": task, "steps": steps, "seeds": len(seeds), "rates": len(lrs),
        "widths": small, "target": target, "threads": torch.get_num_threads(),
    }  # fmt: skip
    figures = {
        "engines": [tuned[0].engine.engine, direct[0].engine.engine],
        "small_seconds": [round(sweep.wall_seconds, 2) for sweep in tuned],
        "direct_seconds": [round(sweep.wall_seconds, 2) for sweep in direct],
        "times_less_time": round(statistics.median(ratios), 1),
        "times_less_compute": round(flops[1] / flops[0], 1),
        "log2_rate": round(math.log2(rate), 3),
        "loss_at_rate": round(statistics.fmean(losses), 5),
        "best_loss_of_direct_grid": round(statistics.fmean(best), 5),
        "excess": round(statistics.fmean(excess), 4),
        "excess_stderr": round(statistics.stdev(excess) / len(excess) ** 0.5, 4),
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
