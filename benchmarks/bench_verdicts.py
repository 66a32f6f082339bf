"""Verdicts of the coordinate check: false alarms on right set-ups, planted faults found.

    python benchmarks/bench_verdicts.py [--part right|faults] [--families 0 1] [--shard 0/2]

A set-up is judged once and kept as a line of ``--rows``: a command that was stopped goes on where
it was, and several shards may run side by side. The command that judges the last set-up of all
writes the history's line and the results page. Set-ups that are not judged right are printed.
"""

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from origin import commit, machine, record
from verdict_zoo import PLACES, TASKS, faults, planted

import thetaone as t1

PAGE = Path(__file__).parent / "results" / "verdicts_cpu2_202611.md"
WIDTHS = (32, 64, 128)
RATES = {"Adam": 2**-9, "AdamW": 2**-9, "SGD": 2**-4, "Muon+AdamW": 2**-9}
FACTORS = (0.5, 1.0, 2.0)
SEEDS, MOST = 3, 6
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SetUp:
    """One check: its name, and the function that judges it."""

    name: str
    judge: Callable[[], Row]


def right(families: Sequence[int]) -> Iterator[SetUp]:
    """The prescription on every task, optimizer, rate and family of seeds."""
    for family in families:
        for name in TASKS:
            for optimizer, lr in RATES.items():
                for factor in FACTORS:
                    yield SetUp(
                        f"{name}, {optimizer}, {factor}·rate, family {family}",
                        lambda n=name, o=optimizer, lr=lr * factor, f=family: _right(n, o, lr, f),
                    )


def _right(name: str, optimizer: str, lr: float, family: int) -> Row:
    try:
        check = t1.coordinate_check(
            TASKS[name](family), widths=WIDTHS, lr=lr, optimizer=optimizer,
            seeds=SEEDS, max_seeds=MOST,
        )  # fmt: skip
    except t1.ThetaOneError as error:
        return {"verdict": "refused", "rows": [str(error)[:160]]}
    blamed = check.failures or [row for row in check.undecided if not row.passed]
    rows = [[r.layer, r.quantity, r.step, r.law and round(r.law.exponent, 2)] for r in blamed[:3]]
    return {"verdict": check.verdict, "passed": check.passed, "seeds": check.seeds, "rows": rows}


def wrong(_: Sequence[int]) -> Iterator[SetUp]:
    """Every fault in every model that has the place for it."""
    for name, places in PLACES.items():
        for fault, (parameter, edit) in faults(*places).items():
            yield SetUp(
                f"{fault} in {name} ({parameter})",
                lambda n=name, p=parameter, e=edit: _wrong(n, p, e),
            )


def _wrong(name: str, parameter: str, edit: Any) -> Row:
    task = TASKS[name](0)
    check = t1.coordinate_check(
        task, widths=WIDTHS, lr=2**-9, seeds=SEEDS, max_seeds=MOST,
        parametrization=planted(task, torch.optim.AdamW, edit),
    )  # fmt: skip
    culprit = check.culprit
    blamed = [culprit.layer, culprit.quantity] if culprit else []
    layer = parameter.removesuffix(".weight")
    located = culprit is not None and culprit.layer in (layer, parameter)
    return {"verdict": check.verdict, "passed": check.passed, "located": located, "rows": blamed}


PARTS = {"right": right, "faults": wrong}


def stored_rows(path: Path, part: str) -> dict[str, Row]:
    """What this commit has judged of a part, by the set-up's name."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    here = [row for row in rows if (row["part"], row["commit"]) == (part, commit())]
    return {row["set-up"]: row for row in here}


def judge(part: str, set_ups: Sequence[SetUp], path: Path) -> None:
    """Judge the set-ups that have no row yet, and keep a row of each."""
    known = stored_rows(path, part)
    for set_up in set_ups:
        if set_up.name in known:
            continue
        started = time.perf_counter()
        row = {"part": part, "commit": commit(), "set-up": set_up.name, **set_up.judge()}
        row["seconds"] = round(time.perf_counter() - started, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if row["verdict"] != ("holds" if part == "right" else "fails") or not row.get("located", 1):
            print(f"{row['verdict']}: {set_up.name} {row['rows']}", flush=True)


def summary(part: str, rows: Mapping[str, Row]) -> dict[str, Any]:
    """The figures of a part."""
    counts = Counter(row["verdict"] for row in rows.values())
    figures: dict[str, Any] = {"set-ups": len(rows)}
    figures |= {verdict: counts[verdict] for verdict in ("holds", "undecided", "fails", "refused")}
    if part == "right":
        figures["passed"] = sum(row.get("passed", False) for row in rows.values())
    else:
        figures["flagged"] = sum(not row["passed"] for row in rows.values())
        figures["right layer"] = sum(row["located"] for row in rows.values())
    return {**figures, "seconds": round(sum(row["seconds"] for row in rows.values()))}


def write_section(part: str, figures: Mapping[str, Any], rows: Mapping[str, Row]) -> None:
    """Replace a part's section of the results page."""
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    bad = "fails" if part == "right" else None
    shown = [
        f"| {name} | {row['verdict']} | {row['rows']} |" for name, row in rows.items()
        if row["verdict"] in (bad, "refused") or not row.get("located", True)
    ]  # fmt: skip
    lines = [
        begin, f"`python benchmarks/bench_verdicts.py --part {part}`, {commit()}, {machine()}:", "",
        "| " + " | ".join(figures) + " |", "|---" * len(figures) + "|",
        "| " + " | ".join(map(str, figures.values())) + " |", "",
    ]  # fmt: skip
    if shown:
        lines += ["| not as it should be | verdict | what is blamed |", "|---|---|---|", *shown, ""]
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(begin)
    PAGE.write_text(head + "\n".join(lines) + end + rest.partition(end)[2], "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=tuple(PARTS), default=None)
    parser.add_argument("--families", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th set-up from the i-th on")
    parser.add_argument("--rows", type=Path, default=Path("out/verdicts.jsonl"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    first, step = (int(number) for number in arguments.shard.split("/"))
    for part, make in PARTS.items():
        if arguments.part not in (None, part):
            continue
        set_ups = list(make(arguments.families))
        judge(part, set_ups[first::step], arguments.rows)
        rows = stored_rows(arguments.rows, part)
        if all(set_up.name in rows for set_up in set_ups):
            chosen = {set_up.name: rows[set_up.name] for set_up in set_ups}
            figures = summary(part, chosen)
            case = {"part": part, "widths": WIDTHS, "families": arguments.families}
            record("verdicts", case, figures)
            write_section(part, figures, chosen)


if __name__ == "__main__":
    main()
