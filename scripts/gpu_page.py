"""The page of a GPU check: what ``gpu_check.py`` wrote as JSON, as tables.

Run: ``python scripts/gpu_page.py out/gpu_check.json benchmarks/results/gpu.md``.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

GIB = 2**30


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for cells in rows:
        yield f"| {' | '.join(map(str, cells))} |"


def memory(figures: Mapping[str, Any]) -> Iterator[str]:
    repeats = figures["plain_step_repeats_bitwise"]
    yield (
        f"A decoder of {figures['parameters'] / 1e6:.0f} M parameters in bfloat16, tokens "
        f"{figures['shape']}; bytes of the chain, by the allocator. Gradients are compared "
        f"under deterministic kernels, where a plain step repeats bit by bit: {_said(repeats)}.\n"
    )
    yield from table(
        ("budget", "planned GiB", "measured GiB", "of planned", "forwards", "bitwise equal"),
        (
            (
                name, f"{row['planned_bytes'] / GIB:.3f}", f"{row['measured_bytes'] / GIB:.3f}",
                row["measured_to_planned"], row["forwards"], _said(row["gradients_bitwise_equal"]),
            )
            for name, row in figures["budgets"].items()
        ),
    )  # fmt: skip
    yield ""
    yield from table(
        ("scheme", "median ms", "of store-all", "peak GiB"),
        (
            (name, row["median_ms"], row["to_store_all"], f"{row['peak_bytes'] / GIB:.3f}")
            for name, row in figures["steps"].items()
        ),
    )


def parametrized(figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"GPT-2 of width {figures['width']}, bf16 autocast, {figures['groups']} groups.\n"
    modes = {name: row for name, row in figures.items() if isinstance(row, dict)}
    yield from table(
        ("mode", "plain ms", "ratio"),
        ((name, row["plain_ms"], row["ratio"]) for name, row in modes.items()),
    )


def stacked(figures: Mapping[str, Any]) -> Iterator[str]:
    widths = {name: row for name, row in figures.items() if name.startswith("width")}
    yield from table(
        ("MLP", "trials", "stacked ms", "one by one ms", "times faster"),
        (
            (name, row["trials"], row["stacked_ms"], row["one_by_one_ms"], row["times_faster"])
            for name, row in widths.items()
        ),
    )


def estimators(figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"{figures['samples']} samples × {figures['dimensions']} dimensions.\n"
    methods = {name: row for name, row in figures.items() if isinstance(row, dict)}
    yield from table(
        ("estimator", "ours ms", "by hand ms", "ratio"),
        ((name, row["ours_ms"], row["by_hand_ms"], row["ratio"]) for name, row in methods.items()),
    )


SECTIONS = {
    "memory_and_steps": ("Memory and steps under a budget", memory),
    "parametrized_step": ("A step after `parametrize` beside plain PyTorch", parametrized),
    "stacked_sweep": ("Stacked sweeps against one by one", stacked),
    "estimators": ("Estimators against the best by hand", estimators),
}


def page(report: Mapping[str, Any]) -> str:
    lines = [
        f"# GPU check: {report['device']}\n",
        f"thetaone {report['thetaone']} ({report['commit'][:7]}), torch {report['torch']}, Python "
        f"{report['python']}. Command: `make gpu-check`, then `python scripts/gpu_page.py`.\n",
        f"The suite's GPU-marked tests: {report['rows']['tests'].get('figures', 'failed')}.",
    ]
    for name, (title, section) in SECTIONS.items():
        row = report["rows"].get(name, {"passed": False, "error": "not run"})
        lines += ["", f"## {title}", ""]
        lines += section(row["figures"]) if row["passed"] else [f"Failed: {row['error'][-300:]}"]
    return "\n".join(lines) + "\n"


def _said(truth: bool) -> str:
    return "yes" if truth else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    options.page.write_text(page(json.loads(options.result.read_text("utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
