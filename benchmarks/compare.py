"""What moved between the last two runs of each benchmark's case on the same machine.

Two runs are two commits; of several results of one case at one commit the median counts. A figure
moved when its ratio to the run before leaves 1 ± threshold.

Run: ``python benchmarks/compare.py`` (``--threshold 0.1``, ``--benchmark norms``, ``--all``).
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).parent / "history"


@dataclass(frozen=True)
class Change:
    """One figure of one case at two commits."""

    benchmark: str
    case: str
    figure: str
    before: float
    after: float
    commits: str

    @property
    def ratio(self) -> float:
        if self.before == self.after:
            return 1.0
        return self.after / self.before if self.before else float("inf")

    def __str__(self) -> str:
        values = f"{self.before:g} -> {self.after:g} ({self.ratio:.2f} ×)"
        return f"{self.benchmark}: {self.case}: {self.figure} {values} [{self.commits}]"


def read(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise SystemExit(f"{file}:{number} is no JSON line: {error}") from error


def numbers(results: list[dict[str, Any]]) -> dict[str, float]:
    """The median of every figure that is a number in all results."""
    values = {
        name: [result["figures"].get(name) for result in results] for name in results[0]["figures"]
    }
    return {
        name: statistics.median(column)
        for name, column in values.items()
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    }


def changes(results: Iterable[dict[str, Any]]) -> Iterator[Change]:
    """Each figure of each case, from the last commit but one to the last, in file order."""
    runs: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = {}
    for result in results:
        case = ", ".join(f"{name} {value}" for name, value in sorted(result["case"].items()))
        commits = runs.setdefault((result["benchmark"], case, result["machine"]), {})
        commits.setdefault(result["commit"], []).append(result)
    for (benchmark, case, _), commits in runs.items():
        if len(commits) < 2:
            continue
        earlier, later = list(commits)[-2:]
        before, after = numbers(commits[earlier]), numbers(commits[later])
        for figure in before.keys() & after.keys():
            pair = before[figure], after[figure]
            yield Change(benchmark, case, figure, *pair, f"{earlier} -> {later}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threshold", type=float, default=0.1, help="relative change worth a line")
    parser.add_argument("--benchmark", default="*", help="one benchmark's name; all by default")
    parser.add_argument("--all", action="store_true", help="also what stayed")
    options = parser.parse_args()
    results = list(read(sorted(HISTORY.glob(f"{options.benchmark}.jsonl"))))
    compared = sorted(changes(results), key=lambda change: -abs(change.ratio - 1))
    moved = [change for change in compared if abs(change.ratio - 1) > options.threshold]
    for change in compared if options.all else moved:
        print(change)
    print(
        f"{len(results)} results; {len(compared)} figures measured at two commits on one machine, "
        f"{len(moved)} of them moved by more than {options.threshold:.0%}"
    )


if __name__ == "__main__":
    main()
