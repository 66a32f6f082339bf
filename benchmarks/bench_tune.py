"""Does the recipe that small models tune reach plain AdamW at its own best rate? JSON lines.

``transfer`` tunes the rate and further choices on small models that are anchored at the target.
Plain AdamW, with the task's own options, is trained at the target on a grid of rates, and the
target by the recipe; three seeds each. The excess is the recipe's loss over plain AdamW's lowest on
the grid, as the mean of the paired seeds with its standard error. It may be negative: the recipe
tunes more than the rate.

Run: ``python benchmarks/bench_tune.py --storage tune.journal`` (about 25 minutes on one core; a
killed run goes on with the same command, several at once share the trials of one journal;
``--name digits`` for one task, ``--small`` for a try in a minute, ``--page`` writes the results
page from ``--results``).
"""

import argparse
import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from bench_anchor import NANO, SEEDS, NanoGPT, Task, excess, losses_of, measured_on, stored
from bench_what_transfers import Products
from origin import commit, processor, record
from torch import nn

import thetaone as t1
from thetaone.sweeps import parse_lrs
from thetaone.tasks import digits


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is tuned and trained.

    Attributes:
        name: In the table.
        task: The task.
        widths: Of the small models.
        target: Width of the large one.
        lrs: Grid, of small and large models alike, as `thetaone sweep` takes it.
        steps: Of every training.
        options: Of AdamW.
        tune: As `thetaone transfer --tune` takes it.
    """

    name: str
    task: Any
    widths: tuple[int, ...]
    target: int
    lrs: str
    steps: int
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tune: tuple[str, ...]


# nanoGPT's readout is its embedding, and its queries are rows of one weight with keys and values
PARTS = ("weight_decay", "beta2", "init", "readout", "embedding")
CASES = (
    Case(name="digits", task=digits, widths=(32, 64), target=512, steps=100, lrs="2^-12:2^-5",
         tune=PARTS),
    Case(name="README", task=Products(), widths=(64, 128), target=512, steps=100,
         lrs="2^-12:2^-5", tune=PARTS),
    Case(name="nanoGPT", task=Task(NanoGPT), widths=(32, 48), target=320, steps=60,
         lrs="2^-13:2^-10", options=NANO, tune=("weight_decay", "beta2", "init")),
)  # fmt: skip


def small(case: Case) -> Case:
    """The same in a minute: shorter, narrower, one choice."""
    target = 64 if case.name == "nanoGPT" else 128
    return replace(case, widths=(16, 32), target=target, steps=8, tune=case.tune[-1:])


def measure(case: Case, storage: str | None, engine: str) -> dict[str, Any]:
    """The recipe, and the target's losses by it and by plain AdamW."""
    common: dict[str, Any] = {
        "seeds": SEEDS, "steps": case.steps, "engine": engine, "storage": storage,
    }  # fmt: skip
    set_up: dict[str, Any] = {"optimizer": "AdamW", **case.options}
    grid = parse_lrs(case.lrs)
    answer = t1.transfer(
        case.task, widths=case.widths, target=case.target, lrs=grid, tune=case.tune,
        **set_up, **common,
    )  # fmt: skip
    plain = t1.sweep(
        case.task, widths=[case.target], base_width=case.target, lrs=grid, parametrization="sp",
        **set_up, **common,
    )  # fmt: skip
    assert answer.recipe is not None
    recipe = answer.recipe

    def by_recipe(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        return recipe.optimizer(model)

    tuned = t1.sweep(
        case.task, widths=[case.target], base_width=case.target, lrs=[recipe.lr],
        parametrization=by_recipe, **common,
    )  # fmt: skip
    (optimum,) = plain.optima.values()
    lowest = min(losses_of(plain).values(), key=statistics.fmean)
    (reached,) = losses_of(tuned).values()
    trials = (*answer.mup.trials, *answer.sp.trials, *plain.trials, *tuned.trials)
    return {
        "plain_log2_lr": round(optimum.log2_lr, 2), "at_edge": optimum.at_edge,
        "plain_loss": round(statistics.fmean(lowest), 4),
        "recipe_lr": recipe.lr, "recipe_loss": round(statistics.fmean(reached), 4),
        **excess(reached, lowest),
        "tuned": {option.name: str(option) for option in answer.tuned},
        "kept": {option.name: option.value for option in answer.tuned if option.kept},
        "tune_trainings": sum(option.n_trials for option in answer.tuned),
        "training_seconds": round(sum(trial.wall_seconds for trial in trials)),
    }  # fmt: skip


def page(results: list[tuple[Any, dict[str, Any]]]) -> str:
    """The results page."""
    lines = [
        "# A recipe tuned on small models against plain AdamW at its own best rate", "",
        "`python benchmarks/bench_tune.py --storage tune.journal --page PAGE`, "
        f"{measured_on(results)}, one thread a training, seeds {', '.join(map(str, SEEDS))}.",
        "The recipe is what `transfer --tune` finds on small models anchored at the target. Plain",
        "AdamW has the task's own options and its best rate on a grid at the target. The excess is",
        "the recipe's loss over plain AdamW's lowest, ± the standard error of the paired seeds.",
        "",
        "| task, steps | small models | target | plain AdamW: best log2 rate, loss | recipe: loss "
        "| kept | excess |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for case, figures in results:
        edge = " (edge)" if figures["at_edge"] else ""
        kept = ", ".join(f"{name} {value:g}" for name, value in figures["kept"].items())
        cells = (
            f"{case.name}, {case.steps}", ", ".join(map(str, case.widths)), case.target,
            f"{figures['plain_log2_lr']}{edge}, {figures['plain_loss']}", figures["recipe_loss"],
            kept or "the rate alone", f"{figures['excess']:+.2%} ± {figures['excess_stderr']:.2%}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for case, figures in results:
        lines += ["", f"## {case.name}: what was tuned", ""]
        lines += [f"- {name}: {said}" for name, said in figures["tuned"].items()]
    return "\n".join(lines) + "\n"


def run(case: Case, options: argparse.Namespace) -> None:
    """Measure a case and append its figures."""
    figures = {
        **measure(case, options.storage, options.engine), "commit": commit(),
        "torch": torch.__version__, "machine": f"{os.cpu_count()} cores, {processor()}",
    }  # fmt: skip
    line = json.dumps({"case": case.name, "figures": figures})
    print(line, flush=True)
    with options.results.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    names = [case.name for case in CASES]
    parser.add_argument("--name", nargs="+", choices=names, default=names)
    parser.add_argument("--small", action="store_true", help="a try: what it finds says nothing")
    parser.add_argument("--storage", help="journal of the trials: a killed run goes on from it")
    parser.add_argument("--engine", default="serial", help="as `thetaone sweep` takes it")
    parser.add_argument("--results", type=Path, default=Path("tune.jsonl"),
                        help="figures of each case, which is then not measured again")  # fmt: skip
    parser.add_argument("--page", type=Path, help="results page to write, and a line of history")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        if case.name in options.name and case.name not in stored(options.results):
            run(small(case) if options.small else case, options)
    if options.page and not options.small:
        figures = stored(options.results)
        results = [(case, figures[case.name]) for case in CASES if case.name in figures]
        options.page.write_text(page(results), encoding="utf-8")
        record("tune", {"cases": len(results), "seeds": len(SEEDS)}, {
            "excess": {case.name: measured["excess"] for case, measured in results},
            "excess_stderr": {case.name: measured["excess_stderr"] for case, measured in results},
            "training_seconds": sum(measured["training_seconds"] for _, measured in results),
        })  # fmt: skip


if __name__ == "__main__":
    main()
