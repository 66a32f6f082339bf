"""Does a proxy anchored at the target predict plain PyTorch's own best rate there? JSON lines.

Every case trains proxies that are scaled to predict the target (anchored there), the plain target
on the same grid of rates, and the plain target at the rate of each proxy; three seeds. The error of
a proxy is its best rate against the target's own, in octaves; the excess is the target's loss at
the proxy's rate over the target's lowest on the grid.

``main``: the four tasks. ``narrow``: proxies 2 to 32 times narrower. ``optimizer``: other
optimizers. ``readout``: the proxies' readout starts plain or at zero. ``depth``: proxies of the
target's width and less depth, and of less width and depth.

Run: ``python benchmarks/bench_anchor.py --storage anchor.journal`` (about 25 minutes on one core;
a killed run goes on with the same command, several at once share the trials of one journal;
``--page`` writes the results page from ``--results``).
"""

import argparse
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bench_what_transfers import Products
from origin import commit, processor, record
from torch import Tensor, nn
from torch.nn import functional as F

import thetaone as t1
from thetaone.sweeps import parse_lrs
from thetaone.tasks import digits, lm

SEEDS = (0, 1, 2)
HEAD = 16  # features of a head of nanoGPT, whatever the width


class Block(nn.Module):
    """nanoGPT's block without dropout: attention and perceptron, each added to the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        b, t, d = x_btd.shape
        qkv = self.c_attn(self.ln_1(x_btd)).view(b, t, 3, d // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0), is_causal=True)
        x_btd = x_btd + self.c_proj(mixed.transpose(1, 2).reshape(b, t, d))
        return x_btd + self.c_out(F.gelu(self.c_fc(self.ln_2(x_btd))))


class NanoGPT(nn.Module):
    """nanoGPT's set-up on the bundled text: tied embeddings, every matrix at std 0.02."""

    def __init__(self, width: int, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(lm.N_CHARACTERS, width), nn.Embedding(lm.CONTEXT, width)
        self.h = nn.ModuleList(Block(width) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, lm.N_CHARACTERS, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("c_proj.weight", "c_out.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * depth) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens_bt: Tensor) -> Tensor:
        x_btd = self.wte(tokens_bt) + self.wpe.weight[: tokens_bt.shape[1]]
        for block in self.h:
            x_btd = block(x_btd)
        return self.lm_head(self.ln_f(x_btd))


@dataclass(frozen=True)
class Task:
    """A model of its own on the bundled text."""

    model: Callable[..., nn.Module]
    batches: Callable[[int], Iterator[Any]] = lm.batches
    loss: Callable[[nn.Module, Any], Tensor] = lm.loss


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained.

    Attributes:
        part: Of the benchmark.
        name: In the table.
        task: The task.
        widths: Of the proxies.
        target: Width of the large model.
        depths: Of the proxies, where the task has several.
        target_depth: Of the large model.
        lrs: Grid, as `thetaone sweep` takes it.
        steps: Of every training.
        optimizer: Class or name.
        options: Of its constructor.
        start: What is done to the proxies' readout after the prescription; None: nothing.
    """

    part: str
    name: str
    task: Any
    widths: tuple[int, ...]
    target: int
    depths: tuple[int, ...] | None = None
    target_depth: int | None = None
    lrs: str
    steps: int
    optimizer: str = "AdamW"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    start: Callable[[nn.Module, float], None] | None = None


def plain_readout(model: nn.Module, ratio: float) -> None:
    """Back to the model's own initial values: the prescription multiplied them by √ratio."""
    readout(model).data.div_(math.sqrt(ratio))


def zero_readout(model: nn.Module, ratio: float) -> None:
    readout(model).data.zero_()


def readout(model: nn.Module) -> Tensor:
    return [p for p in model.parameters() if p.ndim == 2][-1]


NANO = {"weight_decay": 0.1, "beta2": 0.95}
MLP: dict[str, Any] = {"widths": (16, 32, 64, 128, 256), "target": 512, "steps": 100}
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"task": digits, **MLP, "lrs": "2^-14:2^-5"},
    "README": {"task": Products(), **MLP, "lrs": "2^-13:2^-5"},
}
CASES = (
    *(
        Case(part="main", name=name, **{**task, "widths": (32, 64, 128)})
        for name, task in TASKS.items()
    ),
    Case(part="main", name="lm", task=lm, widths=(32, 64, 128), target=256, steps=40,
         lrs="2^-12:2^-7"),
    Case(part="main", name="nanoGPT", task=Task(NanoGPT), widths=(32, 64, 128), target=320,
         steps=60, lrs="2^-14:2^-9", options=NANO),
    Case(part="depth", name="lm, depth", task=lm, widths=(32,), target=32, depths=(2, 4),
         target_depth=16, steps=40, lrs="2^-12:2^-6"),
    Case(part="depth", name="lm, width and depth", task=lm, widths=(16, 32), target=64,
         depths=(2, 4), target_depth=8, steps=40, lrs="2^-12:2^-6"),
    *(Case(part="narrow", name=name, **task) for name, task in TASKS.items()),
    *(
        Case(part="optimizer", name=name, optimizer=optimizer, options=options,
             **{**task, "widths": (32, 64, 128), "lrs": lrs[name]})
        for name, task in TASKS.items()
        for optimizer, options, lrs in (
            ("Adam", {}, {"digits": "2^-14:2^-5", "README": "2^-13:2^-5"}),
            ("SGD", {}, {"digits": "2^-6:2^3", "README": "2^-6:2^3"}),
            ("Muon+AdamW", {}, {"digits": "2^-13:2^-3", "README": "2^-13:2^-3"}),
        )
    ),
    *(
        Case(part="readout", name=f"{name}, {label}", start=start,
             **{**task, "widths": (16, 128)})
        for name, task in TASKS.items()
        for label, start in (("plain", plain_readout), ("zero", zero_readout))
    ),
)  # fmt: skip


def measure(case: Case, storage: str | None, engine: str) -> dict[str, Any]:
    """Best rates of the proxies and of the plain target, and what the proxies' rates cost there."""
    common: dict[str, Any] = {
        "seeds": SEEDS, "steps": case.steps, "target": case.target,
        "target_depth": case.target_depth, "engine": engine, "storage": storage,
    }  # fmt: skip
    set_up = {"optimizer": case.optimizer, **case.options}
    grid = parse_lrs(case.lrs)
    rule = "mup" if case.start is None else started(case)
    proxies = t1.sweep(
        case.task, widths=case.widths, depths=case.depths, lrs=grid, parametrization=rule,
        **common, **({} if callable(rule) else set_up),
    )  # fmt: skip
    depths = None if case.target_depth is None else [case.target_depth]
    plain: dict[str, Any] = {
        "widths": [case.target],
        "depths": depths,
        "parametrization": "sp",
        **set_up,
    }
    target = t1.sweep(case.task, lrs=grid, **plain, **common)
    (best,) = target.optima.values()
    rates = {size: 2.0**optimum.log2_lr for size, optimum in proxies.optima.items()}
    at_rate = t1.sweep(case.task, lrs=sorted(set(rates.values())), **plain, **common)
    losses = {**losses_of(target), **losses_of(at_rate)}
    lowest = min(losses_of(target).values(), key=statistics.fmean)
    (width,) = {case.target} if proxies.axis == "width" else {case.target_depth}
    rows = {
        size: {
            "narrower": round((width or 0) / size, 1),
            "log2_lr": round(optimum.log2_lr, 2), "at_edge": optimum.at_edge,
            "error": round(optimum.log2_lr - best.log2_lr, 2),
            **excess(losses[rates[size]], lowest),
        }
        for size, optimum in proxies.optima.items()
    }  # fmt: skip
    trials = (*proxies.trials, *target.trials, *at_rate.trials)
    return {
        "axis": proxies.axis, "proxies": rows, "plain_log2_lr": round(best.log2_lr, 2),
        "plain_stderr": round(best.stderr, 2), "plain_loss": round(statistics.fmean(lowest), 4),
        "at_edge": best.at_edge, "training_seconds": round(sum(t.wall_seconds for t in trials)),
    }  # fmt: skip


def started(case: Case) -> Callable[[nn.Module, int, float], torch.optim.Optimizer]:
    """The prescription, and then another start of the readout."""

    def build(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        optimizer = t1.parametrize(
            model, base=lambda: case.task.model(case.target), optimizer=case.optimizer, lr=lr
        )
        assert case.start is not None
        with torch.no_grad():
            case.start(model, case.target / width)
        return optimizer

    build.__name__ = case.name
    return build


def losses_of(result: t1.SweepResult) -> dict[float, list[float]]:
    """Rate -> final losses in the order of the seeds."""
    losses: dict[float, list[float]] = {}
    for trial in sorted(result.trials, key=lambda trial: trial.seed):
        losses.setdefault(trial.lr, []).append(trial.final_loss)
    return losses


def excess(losses: list[float], reference: list[float]) -> dict[str, float]:
    """Relative difference of the means, and its standard error from the paired seeds."""
    relative = [
        (a - b) / statistics.fmean(reference) for a, b in zip(losses, reference, strict=True)
    ]
    stderr = statistics.stdev(relative) / math.sqrt(len(relative))
    return {"excess": round(statistics.fmean(relative), 4), "excess_stderr": round(stderr, 4)}


def page(results: list[tuple[Case, dict[str, Any]]]) -> str:
    """The results page."""
    lines = [
        "# Proxies anchored at the target", "",
        "`python benchmarks/bench_anchor.py --storage anchor.journal --page PAGE`, "
        f"{measured_on(results)}, one thread a training, seeds {', '.join(map(str, SEEDS))}.",
        "Best rates are log2, of the plain target on the grid and of each proxy; the error is",
        "their difference in octaves. The excess is the plain target's mean loss at the proxy's",
        "rate over its lowest on the grid, ± the standard error of the paired seeds; it may be",
        "negative, since the rate of a proxy lies between grid points.",
    ]  # fmt: skip
    for part in dict.fromkeys(case.part for case, _ in results):
        lines += ["", f"## {TITLES[part]}", "", *HEAD_ROWS]
        for case, figures in results:
            if case.part == part:
                lines += table_rows(case, figures)
    return "\n".join(lines) + "\n"


def measured_on(results: list[tuple[Case, dict[str, Any]]]) -> str:
    """Commits, versions and machines of the results."""
    said = (f"commit {f['commit']}, torch {f['torch']}, {f['machine']}" for _, f in results)
    return "; ".join(dict.fromkeys(said))


TITLES = {
    "main": "The four tasks", "depth": "Depth", "narrow": "How narrow a proxy may be",
    "optimizer": "Other optimizers", "readout": "Another start of the proxies' readout",
}  # fmt: skip
HEAD_ROWS = (
    "| task | optimizer, steps | target: best rate, loss | proxy | times smaller | best rate "
    "| error | excess loss of the target |",
    "|---|---|---|---|---|---|---|---|",
)  # fmt: skip


def table_rows(case: Case, figures: dict[str, Any]) -> Iterator[str]:
    edge = " (edge)" if figures["at_edge"] else ""
    target = f"{figures['axis']} {case.target if figures['axis'] == 'width' else case.target_depth}"
    best = f"{figures['plain_log2_lr']} ± {figures['plain_stderr']}{edge}"
    for size, row in figures["proxies"].items():
        cells = (
            case.name, f"{case.optimizer}, {case.steps}",
            f"{target}: {best}, {figures['plain_loss']}", size, f"{row['narrower']:g}",
            f"{row['log2_lr']}{' (edge)' if row['at_edge'] else ''}", f"{row['error']:+}",
            f"{row['excess']:+.2%} ± {row['excess_stderr']:.2%}",
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def key(case: Case) -> str:
    """What names a case in the results."""
    return f"{case.part}: {case.name}, {case.optimizer}"


def stored(path: Path | None) -> dict[str, dict[str, Any]]:
    """Case -> figures, of the runs before."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["case"]: line["figures"] for line in lines}


def run(case: Case, options: argparse.Namespace) -> None:
    """Measure a case and append its figures."""
    figures = {
        **measure(case, options.storage, options.engine), "commit": commit(),
        "torch": torch.__version__, "machine": f"{os.cpu_count()} cores, {processor()}",
    }  # fmt: skip
    line = json.dumps({"case": key(case), "figures": figures})
    print(line, flush=True)
    with options.results.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--name", nargs="+", help="tasks, as the table names them; all by default")
    parser.add_argument("--storage", help="journal of the trials: a killed run goes on from it")
    parser.add_argument("--engine", default="serial", help="as `thetaone sweep` takes it")
    parser.add_argument("--results", type=Path, default=Path("anchor.jsonl"),
                        help="figures of each case, which is then not measured again")  # fmt: skip
    parser.add_argument("--page", type=Path, help="results page to write, and a line of history")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        chosen = case.part in options.part and (not options.name or case.name in options.name)
        if chosen and key(case) not in stored(options.results):
            run(case, options)
    if options.page:
        figures = stored(options.results)
        results = [(case, figures[key(case)]) for case in CASES if key(case) in figures]
        options.page.write_text(page(results), encoding="utf-8")
        widest = {key(case): list(measured["proxies"].values())[-1] for case, measured in results}
        tasks = {name: row for name, row in widest.items() if name.startswith("main")}
        limits = {name: row for name, row in widest.items() if name not in tasks}
        record("anchor", {"cases": len(results), "seeds": len(SEEDS)}, {
            "octaves": {name: row["error"] for name, row in tasks.items()},
            "excess": {name: row["excess"] for name, row in tasks.items()},
            "limits_octaves": {name: row["error"] for name, row in limits.items()},
            "limits_excess": {name: row["excess"] for name, row in limits.items()},
            "training_seconds": sum(measured["training_seconds"] for _, measured in results),
        })  # fmt: skip


if __name__ == "__main__":
    main()
