"""Induced norm against torch's exact spectral norm: one JSON line a size, interleaved, one thread.

Run: ``python benchmarks/bench_norms.py`` (about two minutes; ``--sizes 512 1024`` for a short run).
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from origin import record

import thetaone as t1


def seconds(norm: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    norm(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for n in options.sizes:
        w = torch.randn(n, n, generator=torch.Generator().manual_seed(1))
        t1.rms_operator_norm(w)
        ours: list[float] = []
        exact: list[float] = []
        for _ in range(options.repeats):
            ours.append(seconds(t1.rms_operator_norm, w))
            exact.append(seconds(torch.linalg.matrix_norm, w, 2))
        truth = float(torch.linalg.matrix_norm(w, 2))
        figures = {
            "ours_s": round(statistics.median(ours), 5),
            "exact_s": round(statistics.median(exact), 5),
            "ratio_of_medians": round(statistics.median(exact) / statistics.median(ours), 1),
            "relative_error": abs(float(t1.rms_operator_norm(w)) / truth - 1),
        }
        assert math.isfinite(figures["relative_error"])
        case = {"device": "cpu", "threads": 1, "dtype": "float32", "shape": [n, n]}
        record("norms", case, figures)


if __name__ == "__main__":
    main()
