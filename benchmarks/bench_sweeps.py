"""Sweep throughput against one-by-one training in plain torch on the same cores: JSON lines.

The baseline is the loop of every tutorial, with torch's own number of threads; the contender is
the local engine with ``engine="auto"``, its measurement included. Interleaved, best of the repeats
of each. Run: ``python benchmarks/bench_sweeps.py`` (about three minutes on two quiet cores).
``--bound`` measures the limit that a step's own kernels set, without Python and autograd.
``--tiny 2000`` measures what a sweep of 2 000 tiny trials adds to their training, and its memory.
``--page PATH`` writes the results page from the newest results of the history.
"""

import argparse
import functools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from origin import HISTORY, record
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from thetaone.records import EngineDecision, ProgressEvent, TrialSpec
from thetaone.sweeps import Descent, Work, batches_of, grid, open_store, run_local, run_trials
from thetaone.sweeps.engines._stacked import Stack
from thetaone.tasks import LoadedTask, load_task

CASES = [  # task, width, steps
    ("digits", 32, 100), ("digits", 64, 100), ("digits", 128, 100), ("digits", 512, 50),
    ("lm", 32, 20), ("lm", 64, 10), ("lm", 128, 10), ("lm", 256, 5),
]  # fmt: skip
TARGETS = {"digits": 4.0, "lm": 1.8}  # times faster, up to width 128
LEAST, OVERHEAD = 0.98, 5.0  # times faster, of any sweep; per cent, of tiny trials


def adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def one_by_one(task: LoadedTask, specs: Sequence[TrialSpec]) -> float:
    started = time.perf_counter()
    for spec in specs:
        torch.manual_seed(spec.seed)
        model = task.model(spec.width)
        optimizer = adam(model, spec.width, spec.lr)
        losses = []
        for batch in islice(task.batches(spec.seed), spec.n_steps):
            optimizer.zero_grad()
            loss = task.loss(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return time.perf_counter() - started


def engine(task: LoadedTask, specs: Sequence[TrialSpec]) -> tuple[float, EngineDecision]:
    decisions: list[EngineDecision] = []
    started = time.perf_counter()
    work = Work(task=task, make_optimizer=adam)
    trials = list(run_local(work, specs, decided=decisions.append))
    assert all(trial.status != "failed" for trial in trials)
    return time.perf_counter() - started, decisions[0]


class Kernels(TorchDispatchMode):
    """Notes every kernel that runs inside, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def kernel_seconds(step: Callable[[], object], repeats: int) -> tuple[float, float]:
    """What a step's matrix products, and all its kernels, take alone: fastest of the repeats."""
    with Kernels() as kernels:
        step()
    products, others = 0.0, 0.0
    for func, args, kwargs in kernels.calls:
        with torch.no_grad():
            call = functools.partial(func, *args, **kwargs)
            seconds = min(timed(call) for _ in range(repeats))
        if func._overloadpacket in flop_registry or "scaled_dot_product" in str(func):
            products += seconds
        else:
            others += seconds
    return products, products + others


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bound(name: str, width: int, repeats: int) -> None:
    """What no engine can beat: every core doing nothing but a step's matrix products, or kernels.

    speedup ≤ cores · (plain step, torch's own threads) / (those alone, on one thread), as one model
    has them or as a stack does, whichever is faster a model.
    """
    task, cores = load_task(name), torch.get_num_threads()
    specs = grid(
        widths=[width], lrs=task.defaults["lrs"], seeds=task.defaults["seeds"][:2], n_steps=1000,
        parametrization="sp", base_width=width,
    )  # fmt: skip
    work = Work(task=task, make_optimizer=adam)
    model, optimizer = work.build(specs[0])
    descent = Descent(work, model, optimizer, 1000)
    stream = batches_of(task, specs[0])
    descent.step(next(stream))
    plain = min(timed(lambda: descent.step(next(stream))) for _ in range(4 * repeats))
    torch.set_num_threads(1)
    try:
        alone = kernel_seconds(lambda: descent.step(next(stream)), repeats)
        members = specs[: len(specs) // 2]
        with Stack(work, members) as stack:
            stack.step()
            stacked = [seconds / len(members) for seconds in kernel_seconds(stack.step, repeats)]
    finally:
        torch.set_num_threads(cores)
    products, kernels = map(min, zip(alone, stacked, strict=True))
    case = {"threads": cores, "task": f"{name}, bound", "width": width}
    figures = {
        "plain_step_ms": round(1e3 * plain, 3),
        "products_ms": round(1e3 * products, 3), "kernels_ms": round(1e3 * kernels, 3),
        "kernels_alone_ms": round(1e3 * alone[1], 3),
        "kernels_in_a_stack_ms": round(1e3 * stacked[1], 3),
        "speedup_of_products_alone": round(cores * plain / products, 2),
        "speedup_at_most": round(cores * plain / kernels, 2),
    }  # fmt: skip
    record("sweeps", case, figures)


def many_trials(n_trials: int) -> None:
    """Processor time and memory of a sweep of tiny trials on a journal, beside the bare loop."""
    torch.set_num_threads(1)
    task, width, steps = load_task("digits"), 16, 100
    rates, seeds = [2.0 ** (power / 4) for power in range(-40, -20)], range(n_trials // 20)
    specs = grid(
        widths=[width], lrs=rates, seeds=seeds, n_steps=steps, parametrization="sp",
        base_width=width,
    )  # fmt: skip
    marks: list[tuple[float, float]] = []  # seconds, MiB
    bare: list[float] = []  # seconds of one plain training between the sweep's own

    def mark(event: ProgressEvent) -> None:
        if event.kind == "trial" and event.n_done % (n_trials // 10) == 0:
            marks.append((time.process_time() - sum(bare), resident_mebibytes()))
            started = time.process_time()
            one_by_one(task, specs[: n_trials // 100])
            bare.append(time.process_time() - started)

    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "sweep.journal", experiment="tiny")
        work = Work(task=task, make_optimizer=adam)
        run_trials(work, specs[:1], store=store, engine="serial")  # what is loaded once
        started = time.process_time()
        runs = run_trials(work, specs[1:], store=store, engine="serial", progress=mark)
        swept = time.process_time() - started - sum(bare)
    alone = sum(bare) / (len(bare) * (n_trials // 100)) * n_trials
    case = {"task": "digits, tiny trials", "width": width, "trials": len(specs), "steps": steps}
    figures = {
        "plain_cpu_seconds": round(alone, 2), "sweep_cpu_seconds": round(swept, 2),
        "overhead_percent": round(100 * (swept / alone - 1), 2),
        "mebibytes_by_tenths": [round(memory, 1) for _, memory in marks],
        "kibibytes_a_trial": round(1024 * (marks[-1][1] - marks[0][1]) / (0.9 * n_trials), 1),
        "of_its_losses": round(size_of(runs.trials[specs[1]].losses) / 1024, 1),
    }  # fmt: skip
    record("sweeps", case, figures)


def size_of(numbers: Sequence[float]) -> int:
    """Bytes of a sequence with its numbers: what the result holds, and is asked for."""
    return sys.getsizeof(numbers) + sum(map(sys.getsizeof, numbers))


def newest() -> dict[tuple[str, int], Mapping[str, Any]]:
    """Task and width -> the newest line of the history."""
    lines = (HISTORY / "sweeps.jsonl").read_text(encoding="utf-8").splitlines()
    parsed = [json.loads(line) for line in lines]
    return {(line["case"]["task"], line["case"]["width"]): line for line in parsed}


def page() -> str:
    """The results page: speedups beside their limits, and what tiny trials cost."""
    lines = newest()
    used = [
        line for (task, _), line in lines.items() if task.partition(",")[0] in TARGETS
    ]  # fmt: skip
    said = (f"commit {line['commit']}, torch {line['torch']}, {line['machine']}" for line in used)
    return "\n".join([
        "# Sweep throughput", "",
        "`python benchmarks/bench_sweeps.py`, `--bound`, `--tiny 2000`, `--page PAGE`; "
        f"{'; '.join(dict.fromkeys(said))}; float32, Adam.", "",
        "Against one-by-one training in plain torch with its own threads; the engine's own "
        "measurement is included.",
        "The speedup is that of the fastest of the interleaved repeats. The limit is what no "
        "engine can beat: every core",
        "runs the kernels of a step and nothing else, no Python and no autograd, as one model has "
        "them or as a stack does.", "",
        "| task | width | trials × steps | chosen | plain [s] | engine [s] | speedup | of medians "
        "| limit | of products alone | target |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(row for name, width, _ in CASES for row in speed_rows(lines, name, width)), "",
        *tiny_words(lines.get(("digits, tiny trials", 16))),
    ]) + "\n"  # fmt: skip


def speed_rows(
    lines: Mapping[tuple[str, int], Mapping[str, Any]], name: str, width: int
) -> Iterator[str]:
    """The row of a case; none where it was not measured."""
    line, limit = lines.get((name, width)), lines.get((f"{name}, bound", width))
    if line is None:
        return
    case, figures = line["case"], line["figures"]
    most = None if limit is None else limit["figures"]["speedup_at_most"]
    products = "–" if limit is None else limit["figures"]["speedup_of_products_alone"]
    cells = (
        name, width, f"{case['trials']} × {case['steps']}", figures["engine"],
        figures["plain_seconds"], figures["engine_seconds"], figures["speedup"],
        figures["speedup_median"], "not measured" if most is None else most, products,
        target_words(TARGETS[name] if width <= 128 else LEAST, figures["speedup"], most),
    )  # fmt: skip
    yield f"| {' | '.join(map(str, cells))} |"


def target_words(target: float, speedup: float, limit: float | None) -> str:
    """Whether a target was reached, and whether it can be."""
    if speedup >= target:
        return f"{target:g}: reached"
    beyond = limit is not None and limit < target
    return f"{target:g}: missed" + (", beyond the limit" if beyond else "")


def tiny_words(line: Mapping[str, Any] | None) -> Iterator[str]:
    """What a sweep of tiny trials costs beside their training."""
    if line is None:
        return
    case, figures = line["case"], line["figures"]
    reached = "reached" if figures["overhead_percent"] <= OVERHEAD else "missed"
    memory = ", ".join(map(str, figures["mebibytes_by_tenths"]))
    yield (
        f"{case['trials']} trials of {case['steps']} steps at width {case['width']}, kept in a "
        f"journal: {figures['overhead_percent']} % of processor time beside their training "
        f"(target {OVERHEAD:g} %: {reached}); memory after each tenth {memory} MiB, "
        f"{figures['kibibytes_a_trial']} KiB a trial"
        + (f", {figures['of_its_losses']} of them the losses of the result."
           if "of_its_losses" in figures else ".")
    )  # fmt: skip


def resident_mebibytes() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bound", action="store_true", help="only: the limit of the speedup")
    parser.add_argument("--tiny", type=int, metavar="TRIALS", help="only: so many tiny trials")
    parser.add_argument("--page", type=Path, help="only: the page, from the newest results")
    options = parser.parse_args()
    if options.page:
        options.page.write_text(page(), encoding="utf-8")
        return
    if options.bound:
        for name, width, _ in CASES:
            bound(name, width, options.repeats)
        return
    if options.tiny:
        many_trials(options.tiny)
        return
    for name, width, steps in CASES:
        task = load_task(name)
        specs = grid(
            widths=[width], lrs=task.defaults["lrs"], seeds=task.defaults["seeds"][:2],
            n_steps=steps, parametrization="sp", base_width=width,
        )  # fmt: skip
        one_by_one(task, specs[:1])
        plain, ours, decision = [], [], None
        for _ in range(options.repeats):
            plain.append(one_by_one(task, specs))
            seconds, decision = engine(task, specs)
            ours.append(seconds)
        assert decision is not None
        case = {
            "threads": torch.get_num_threads(), "task": name, "width": width,
            "trials": len(specs), "steps": steps,
        }  # fmt: skip
        figures = {
            "repeats": options.repeats, "engine": decision.engine, "stacks": decision.stacks,
            "plain_seconds": round(min(plain), 3), "engine_seconds": round(min(ours), 3),
            "plain_median": round(statistics.median(plain), 3),
            "engine_median": round(statistics.median(ours), 3),
            "speedup": round(min(plain) / min(ours), 2),
            "speedup_median": round(statistics.median(plain) / statistics.median(ours), 2),
        }  # fmt: skip
        record("sweeps", case, figures)


if __name__ == "__main__":
    main()
