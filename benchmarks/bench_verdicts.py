"""Verdicts of the coordinate check: false alarms on right set-ups, planted faults found.

    python benchmarks/bench_verdicts.py [--part right|faults] [--families 0 1]

Prints one line a set-up that is not judged right, and one JSON line a part.
"""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from origin import record
from verdict_zoo import PLACES, ROLES, TASKS, faults, planted

import thetaone as t1

WIDTHS = (32, 64, 128)
RATES = {"Adam": 2**-9, "AdamW": 2**-9, "SGD": 2**-4, "Muon+AdamW": 2**-9}
FACTORS = (0.5, 1.0, 2.0)


def right(families: Sequence[int]) -> dict[str, Any]:
    """The prescription on every task, optimizer, rate and family of seeds."""
    counts: Counter[str] = Counter()
    seeds: list[int] = []
    for family in families:
        for name, make in TASKS.items():
            for optimizer, lr in RATES.items():
                for factor in FACTORS:
                    where = f"{name}, {optimizer}, {factor}·rate, family {family}"
                    try:
                        check = t1.coordinate_check(
                            make(family), widths=WIDTHS, lr=lr * factor, optimizer=optimizer,
                            roles=ROLES.get(name), seeds=3, max_seeds=6,
                        )  # fmt: skip
                    except t1.ThetaOneError as error:
                        counts["refused"] += 1
                        if factor == 1:
                            print("refused:", where, str(error)[:160], flush=True)
                        continue
                    counts[check.verdict] += 1
                    counts["passed"] += check.passed
                    seeds.append(check.seeds)
                    if check.failures:
                        rows = [(r.layer, r.quantity, r.step) for r in check.failures[:3]]
                        print("FALSE ALARM:", where, rows, flush=True)
                    elif not check.passed:
                        rows = [
                            (r.layer, r.quantity, r.step, r.law and round(r.law.exponent, 2))
                            for r in check.undecided
                            if not r.passed
                        ]
                        print("open:", where, rows[:3], flush=True)
    return {**counts, "mean_seeds": round(sum(seeds) / max(1, len(seeds)), 2)}


def wrong() -> dict[str, Any]:
    """Every fault in every model that has the place for it."""
    counts: Counter[str] = Counter()
    for name, places in PLACES.items():
        task = TASKS[name](0)
        for fault, (parameter, edit) in faults(*places).items():
            check = t1.coordinate_check(
                task, widths=WIDTHS, lr=2**-9, seeds=3, max_seeds=6,
                parametrization=planted(task, torch.optim.AdamW, edit),
            )  # fmt: skip
            culprit = check.culprit
            layer = parameter.removesuffix(".weight")
            found = culprit is not None and culprit.layer in (layer, parameter)
            counts["planted"] += 1
            counts["flagged"] += not check.passed
            counts["right layer"] += found
            if not found:
                what = (culprit.layer, culprit.quantity) if culprit else check.verdict
                print(f"missed: {fault} in {name} ({parameter}): {what}", flush=True)
    return dict(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("right", "faults"), default=None)
    parser.add_argument("--families", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for part, run in (("right", lambda: right(arguments.families)), ("faults", wrong)):
        if arguments.part in (None, part):
            started = time.perf_counter()
            counts = run()
            case = {"part": part, "widths": WIDTHS, "families": arguments.families}
            record("verdicts", case, {**counts, "seconds": round(time.perf_counter() - started)})


if __name__ == "__main__":
    main()
