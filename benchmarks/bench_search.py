"""What a search for the best rate costs against the grid, and how near to the truth it ends.

Truth: the vertex of the mean curve of all seeds on a dense grid. Each draw of three seeds is what a
user would have: the grid (octaves, or the half octaves that ±1/4 octave asks for) and the search in
its place, on the same seeds. Trials of the dense grid are kept in the storage and found again, so
only what the search stops early is trained anew; every training is charged in full.

    python benchmarks/bench_search.py --seeds 24 --storage search.journal
    python benchmarks/bench_search.py --task lm --optimizers AdamW --steps 40 --storage lm.journal
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from bench_optimum_intervals import OCTAVES, PER_OCTAVE, truth_of
from origin import record

import thetaone as t1
from thetaone.records import SweepResult
from thetaone.sweeps import loss_curves

DRAWN = 3  # seeds of a draw
NEAR = 0.25  # octaves


def swept(optimizer: str, powers: Sequence[float], seeds: Any, arguments: Any, **how: Any) -> Any:
    return t1.sweep(
        arguments.task, widths=[arguments.width], lrs=[2.0**power for power in powers], seeds=seeds,
        steps=arguments.steps, optimizer=optimizer, parametrization="sp", engine=arguments.engine,
        n_processes=1, storage=arguments.storage, **how,
    )  # fmt: skip


def errors(results: Sequence[SweepResult], truth: float) -> np.ndarray:
    return np.array([next(iter(result.optima.values())).log2_lr - truth for result in results])


def compare(optimizer: str, step: float, truth: float, arguments: Any) -> dict[str, Any]:
    """Grid and search over disjoint draws of the seeds."""
    first, last = OCTAVES[optimizer]
    powers = [first + step * index for index in range(round((last - first) / step) + 1)]
    draws = [range(s, s + DRAWN) for s in range(0, arguments.seeds - DRAWN + 1, DRAWN)]
    grids = [swept(optimizer, powers, seeds, arguments) for seeds in draws]
    searches = [swept(optimizer, powers, seeds, arguments, search="auto") for seeds in draws]
    by_grid, by_search = errors(grids, truth), errors(searches, truth)
    shares = [result.search.share for result in searches if result.search]
    return {
        "truth": round(truth, 3), "draws": len(draws), "n_grid": len(grids[0].trials),
        "n_search": float(np.median([len(result.trials) for result in searches])),
        "share_median": round(float(np.median(shares)), 3), "share_largest": round(max(shares), 3),
        "error_search": round(float(np.sqrt((by_search**2).mean())), 3),
        "error_grid": round(float(np.sqrt((by_grid**2).mean())), 3),
        "near_search": int((abs(by_search) <= NEAR).sum()),
        "near_grid": int((abs(by_grid) <= NEAR).sum()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--optimizers", nargs="+", choices=OCTAVES, default=list(OCTAVES))
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--storage", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for optimizer in arguments.optimizers:
        first, last = OCTAVES[optimizer]
        dense = np.arange(first * PER_OCTAVE, last * PER_OCTAVE + 1) / PER_OCTAVE
        everything = swept(optimizer, dense.tolist(), range(arguments.seeds), arguments)
        truth = truth_of(*loss_curves(everything.trials)[arguments.width])
        for step in (1.0, 0.5):
            case = {
                "task": arguments.task, "width": arguments.width, "steps": arguments.steps,
                "optimizer": optimizer, "octaves_between_rates": step, "seeds": DRAWN,
            }  # fmt: skip
            record("search", case, compare(optimizer, step, truth, arguments))


if __name__ == "__main__":
    main()
