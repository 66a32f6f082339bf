"""How often the interval of the best learning rate holds the truth, on real losses of ``digits``.

Truth: the vertex of the mean curve of all seeds on a dense grid. Each draw is what a user would
have trained: an octave grid at one of the offsets of the dense one, and a few of the seeds.

Run: ``python benchmarks/bench_optimum_intervals.py`` (about five minutes on two cores; with
``--storage coverage.journal`` a stopped run goes on).
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from origin import record

import thetaone as t1
from thetaone.laws import fit_vertex
from thetaone.sweeps import loss_curves

PER_OCTAVE = 4
OCTAVES = {"SGD": (-7, 1), "AdamW": (-12, -3)}
DRAWS = 400


def curve(optimizer: str, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Dense log2 rates [n] and final losses [seeds, n]."""
    first, last = OCTAVES[optimizer]
    powers = np.arange(first * PER_OCTAVE, last * PER_OCTAVE + 1) / PER_OCTAVE
    result = t1.sweep(
        "digits", widths=[arguments.width], lrs=2.0**powers, seeds=range(arguments.seeds),
        steps=arguments.steps, optimizer=optimizer, parametrization="sp", engine=arguments.engine,
        storage=arguments.storage,
    )  # fmt: skip
    return loss_curves(result.trials)[arguments.width]


def truth_of(x: np.ndarray, losses: np.ndarray) -> float:
    """Vertex of a quartic through the mean curve within 1.5 octaves of its lowest point."""
    mean = losses.mean(axis=0)
    low = int(np.argmin(mean))
    near = np.isfinite(mean) & (np.abs(x - x[low]) <= 1.5)
    quartic = np.polyfit(x[near] - x[low], mean[near], 4)
    fine = np.linspace(-1, 1, 4001)
    return float(x[low] + fine[np.polyval(quartic, fine).argmin()])


def draws(x: np.ndarray, losses: np.ndarray, n_seeds: int) -> Iterator[tuple]:
    """Octave grids and seeds, drawn without replacement."""
    rng = np.random.default_rng(n_seeds)
    for draw in range(DRAWS):
        columns = np.arange(draw % PER_OCTAVE, x.size, PER_OCTAVE)
        rows = rng.choice(len(losses), n_seeds, replace=False)
        yield x[columns], losses[np.ix_(rows, columns)]


def coverage(x: np.ndarray, losses: np.ndarray, n_seeds: int) -> dict[str, float]:
    """Share of answers, share of answers that hold the truth, and their median width [octaves]."""
    truth, hits, widths = truth_of(x, losses), [], []
    flat = edge = 0
    for rates, drawn in draws(x, losses, n_seeds):
        best = fit_vertex(rates, drawn)
        flat, edge = flat + best.flat, edge + best.at_edge
        hits.append(best.interval[0] <= truth <= best.interval[1])
        if not best.flat and not best.at_edge:
            widths.append(best.interval[1] - best.interval[0])
    return {
        "truth": round(truth, 3), "covered": float(np.mean(hits)),
        "flat": flat / DRAWS, "edge": edge / DRAWS,
        "median_width_told": float(np.median(widths)) if widths else float("nan"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--storage", default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for optimizer in OCTAVES:
        x, losses = curve(optimizer, arguments)
        for n_seeds in (2, 3, 5, 10):
            case = {
                "task": "digits", "width": arguments.width, "steps": arguments.steps,
                "optimizer": optimizer, "seeds": n_seeds,
            }  # fmt: skip
            record("optimum_intervals", case, coverage(x, losses, n_seeds))


if __name__ == "__main__":
    main()
