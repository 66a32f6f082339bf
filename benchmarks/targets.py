"""What the project must reach beside what the history holds: writes the page of targets.

A row takes the newest result of each of its cases and shows the worst of them. What was never
measured is shown so, what was missed is shown as missed.

Run: ``python benchmarks/targets.py`` (writes ``docs/benchmarks.md``; ``--check`` only compares).
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "benchmarks" / "history"
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Targets and what was measured

What the library sets itself, and the newest figure of each benchmark in `benchmarks/history`. A row
shows the worst of its cases. `make bench` measures speed and memory again, `make bench-all` the
rest too; both write this page from the history, and nothing on it is written by hand. What ran on a
GPU is in `benchmarks/results/gpu_h100_202611.md`.

"""


@dataclass(frozen=True)
class Target:
    """A limit on one figure of the cases of one benchmark.

    Attributes:
        what: The row's name.
        benchmark: File of the history.
        figure: Path of the figure in a result: ``excess.lm``; ``*`` takes the worst of a mapping.
        limit: The target.
        at_least: Whether the figure should not be below it; else not above.
        case: What the case must say.
        script: The program that measures it, if it is not ``bench_<benchmark>.py``.
        absolute: Whether the sign of the figure does not matter.
    """

    what: str
    benchmark: str
    figure: str
    limit: float
    at_least: bool = False
    case: Mapping[str, Any] = field(default_factory=dict)
    script: str = ""
    absolute: bool = False

    def of(self, line: Mapping[str, Any]) -> float | None:
        """The figure of one result, None if it is another case's or lacks it."""
        case = line["case"]
        if any(case.get(key) not in _choices(value) for key, value in self.case.items()):
            return None
        values = [line["figures"]]
        for key in self.figure.split("."):
            values = [
                deeper
                for value in values
                if isinstance(value, dict)
                for deeper in (value.values() if key == "*" else [value.get(key)])
            ]
        numbers = [float(one) for one in values if isinstance(one, int | float)]
        numbers = list(map(abs, numbers)) if self.absolute else numbers
        return (min if self.at_least else max)(numbers, default=None)

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def _choices(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


SWEEPS = {"width": (32, 64, 128)}
TARGETS = (
    Target(
        "rate found by `transfer` against the grid at the target: times less compute",
        "transfer", "times_less_compute", 20, at_least=True, case={"kind": "cost"},
    ),
    Target(
        "the same: times less time", "transfer", "times_less_time", 10, at_least=True,
        case={"kind": "cost"},
    ),
    Target(
        "the same: loss above the grid's best", "transfer", "excess", 0.01, case={"kind": "cost"}
    ),
    Target(
        "drift of the best rate over 64 → 1024 [octaves]", "transfer", "octaves", 0.25,
        case={"kind": "drift", "parametrization": "mup"}, absolute=True,
    ),
    Target(
        "rate of anchored proxies against the target's own best [octaves]", "anchor", "octaves.*",
        0.25, absolute=True,
    ),
    Target("loss at that rate above the target's best", "anchor", "excess.*", 0.01),
    Target("recipe tuned on small models: loss above plain AdamW's best", "tune", "excess.*", 0.01),
    Target(
        "step after `parametrize` against plain torch, transformer",
        "parametrization", "ratio", 1.01,
        case={"what": "step, transformer of width 256", "who": "thetaone"},
    ),
    Target(
        "the same, MLP of width 512", "parametrization", "ratio", 1.01,
        case={"what": "step, MLP of width 512", "who": "thetaone"},
    ),
    Target(
        "prescription of 100 M parameters in 148 tensors [ms]", "parametrization", "median_ms", 6,
        case={"what": "prescribe", "who": "thetaone"},
    ),
    Target(
        "coordinate check, 6 widths to 2048 × 3 seeds × 3 steps [ms]", "parametrization",
        "median_ms", 700, case={"what": "coordinate check", "who": "thetaone"},
    ),
    Target(
        "exponent of feature updates over widths 64 to 2048, input", "exponents", "input", 0.05,
        case={"parametrization": "mup"}, absolute=True,
    ),
    Target(
        "the same, hidden", "exponents", "hidden", 0.05, case={"parametrization": "mup"},
        absolute=True,
    ),
    Target(
        "the same, readout", "exponents", "readout", 0.06, case={"parametrization": "mup"},
        absolute=True,
    ),
    Target(
        "the same in standard parametrization, hidden: it must fail", "exponents", "hidden", 0.25,
        at_least=True, case={"parametrization": "sp"}, absolute=True,
    ),
    Target(
        "`rms_operator_norm`, 4096 × 4096: times faster than the exact norm", "norms",
        "ratio_of_medians", 30, at_least=True, case={"shape": [4096, 4096]},
    ),
    Target(
        "sweep of MLPs up to width 128 against one by one: times faster", "sweeps", "speedup", 4,
        at_least=True, case={"task": "digits"} | SWEEPS,
    ),
    Target(
        "sweep of transformers up to width 128: times faster", "sweeps", "speedup", 1.8,
        at_least=True, case={"task": "lm"} | SWEEPS,
    ),
    Target("any sweep: times faster", "sweeps", "speedup", 0.98, at_least=True),
    Target(
        "step under a budget against the best rival that fits", "rematerialization", "ratio", 1.01,
        case={"scheme": "ours"},
    ),
    Target(
        "the same at 95 % of store-all", "rematerialization", "ratio", 0.92,
        case={"scheme": "ours", "budget": "95 % of store-all"},
    ),
    Target(
        "the same at 75 % of store-all", "rematerialization", "ratio", 0.96,
        case={"scheme": "ours", "budget": "75 % of store-all"},
    ),
    Target("its peak beside the planned one [MiB]", "rematerialization", "off_plan_mib", 1),
    Target(
        "seconds to plan 100 unlike blocks, 500 memory units", "planner", "wall_s", 0.5,
        case={"case": "ours, 100 unlike blocks, 500 units"}, script="bench_rematerialization.py",
    ),
    Target(
        "the same, 1000 equal blocks", "planner", "wall_s", 1,
        case={"case": "ours, 1000 equal blocks, 500 units"}, script="bench_rematerialization.py",
    ),
    Target(
        "the same, 1000 unlike blocks", "planner", "wall_s", 10,
        case={"case": "ours, 1000 unlike blocks, 500 units"}, script="bench_rematerialization.py",
    ),
    Target(
        "estimators, 10 000 × 100, against the best by hand", "estimators", "ratio", 1.2,
        case={"version": "thetaone"},
    ),
    Target(
        "right set-ups flagged by the coordinate check", "verdicts", "fails", 0,
        case={"part": "right"},
    ),
    Target(
        "faults planted in 70 set-ups and found in the right layer", "verdicts", "right layer", 67,
        at_least=True, case={"part": "faults"},
    ),
    Target(
        "search for the rate against the grid: share of its compute", "search", "share_median", 0.4
    ),
    Target(
        "the same: of eight draws within 1/4 octave of the truth", "search", "near_search", 8,
        at_least=True, case={"octaves_between_rates": 0.5},
    ),
    Target(
        "95 % intervals of the best rate, on real losses: share that holds it",
        "optimum_intervals", "covered", 0.9, at_least=True,
    ),
    Target(
        "95 % intervals of mean gradients: share that holds the truth", "estimator_intervals",
        "covered", 0.93, at_least=True, case={"what": "means"},
    ),
    Target(
        "unbiased estimators called biased", "estimator_intervals", "biased", 0,
        case={"what": "false alarms"},
    ),
    Target("`thetaone --help` [s]", "front", "seconds", 0.3, case={"what": "--help"}),
    Target("page of `make demo` [kB]", "front", "kilobytes", 600, case={"what": "demo"}),
    Target("CartPole-v1: mean return of the last 80 episodes", "policy", "last_80_mean", 475,
           at_least=True, case={"environment": "CartPole-v1"}),
    Target("Acrobot-v1, the same", "policy", "last_80_mean", -100, at_least=True,
           case={"environment": "Acrobot-v1"}),
    Target("Pendulum-v1, the same", "policy", "last_80_mean", -250, at_least=True,
           case={"environment": "Pendulum-v1"}),
)  # fmt: skip


def results(benchmark: str) -> list[dict[str, Any]]:
    """The newest result of each case."""
    file = HISTORY / f"{benchmark}.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    newest = {json.dumps(one["case"]): one for one in map(json.loads, lines)}
    return list(newest.values())


def row(target: Target, machines: list[str]) -> str:
    """The table row of a target, from the worst of its cases.

    A machine stands in it by its letter; one that is not in ``machines`` yet is added there.
    """
    bound = f"{'≥' if target.at_least else '≤'} {target.limit:g}"
    judged = [(target.of(one), one) for one in results(target.benchmark)]
    present = [(value, one) for value, one in judged if value is not None]
    script = target.script or f"bench_{target.benchmark}.py"
    if not present:
        return f"| {target.what} | {bound} | not measured | | `{script}` |"
    worst, line = sorted(present, key=lambda pair: pair[0], reverse=not target.at_least)[0]
    hits = sum(target.met(value) for value, _ in present)
    verdict = "reached" if hits == len(present) else f"missed in {len(present) - hits}"
    machine = f"{line['machine']}, torch {line['torch']}"
    if machine not in machines:
        machines.append(machine)
    where = f"{chr(ord('A') + machines.index(machine))}, {line['commit']}"
    return (
        f"| {target.what} | {bound} | **{worst:g}**, {verdict} of {len(present)} | {where} | "
        f"`{script}` |"
    )


def page() -> str:
    machines: list[str] = []
    table = ["| what | target | worst case | machine, commit | program |", "|---|---|---|---|---|"]
    rows = [row(target, machines) for target in TARGETS]
    letters = [f"- {chr(ord('A') + k)}: {machine}" for k, machine in enumerate(machines)]
    return HEAD + "\n".join([*table, *rows, "", "Machines:", "", *letters]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="end 1 if the page is another")
    if parser.parse_args().check:
        return int(not PAGE.exists() or PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
