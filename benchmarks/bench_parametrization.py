"""Set-up, groups, step time and coordinate check beside mup and unit-scaling. One thread.

CPU seconds, so that other work on the machine is not counted. Steps of two kinds are timed in turn,
each first in every other pair; the ratio is the median over pairs. mup and unit-scaling join when
they are installed (mup without torchvision: ``pip install --no-deps mup unit-scaling``, and what
their imports ask for).

Run: python benchmarks/bench_parametrization.py
"""

import inspect
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from origin import record
from torch import Tensor, nn

import thetaone as t1
from thetaone.parametrization import SpectralMonitor
from thetaone.tasks import lm

try:
    import mup
except ImportError:
    mup = None
try:
    import unit_scaling
    import unit_scaling.optim
except ImportError:
    unit_scaling = None

torch.set_num_threads(1)
WIDTHS = (64, 128, 256, 512, 1024, 2048)


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(32, width, bias=False),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.ReLU(),
        nn.Linear(width, 10, bias=False),
    )


class Task:
    def model(self, width: int) -> nn.Module:
        return mlp(width)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        g = torch.Generator().manual_seed(seed)
        yield torch.randn(64, 32, generator=g), torch.randint(10, (64,), generator=g)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])


def timed(function: Callable[[], Any], repeats: int = 9) -> dict[str, float]:
    function()
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return {"min_ms": min(times) * 1e3, "median_ms": statistics.median(times) * 1e3}


def report(what: str, who: str, **figures: Any) -> None:
    record("parametrization", {"what": what, "who": who}, figures)


class Tokens(nn.Module):
    """Twelve encoder layers between an embedding and a norm: 100 M parameters in 148 tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(19_900, width), nn.Embedding(256, width)
        heads = width // 64
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)


class Readable(Tokens):
    """The same with its forward pass."""

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        features = self.layers(self.tokens(tokens) + self.positions(places))
        return self.norm(features) @ self.tokens.weight.T


def read_alone() -> dict[str, float]:
    """Seconds of a first prescription with its two forward passes, and bytes beyond the models."""
    base, target = Readable(192), Readable(768)
    tokens = torch.zeros(1, 16, dtype=torch.long)
    small = Readable(64)
    t1.prescribe(small, base=small, sample=tokens)  # what is imported at first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = peak_kib()
    start = time.process_time()
    t1.prescribe(target, base=base, sample=tokens)
    seconds = time.process_time() - start
    return {
        "parameters": sum(p.numel() for p in target.parameters()),
        "seconds": round(seconds, 3),
        "mib_beyond_models": round((peak_kib() - before) / 2**10, 1),
    }


def peak_kib() -> int:
    """Most memory that this process has held since its peak was cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def program_read() -> None:
    """In a process of its own, whose peak is that of the reading."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        report("prescribe with its program read", "thetaone", **pool.apply(read_alone))


def setup() -> None:
    base, target = Tokens(192), Tokens(768)
    size = {
        "parameters": sum(p.numel() for p in target.parameters()),
        "tensors": len(list(target.parameters())),
    }
    report("prescribe", "thetaone", **size, **timed(lambda: t1.prescribe(target, base=base)))
    built = t1.parametrize(target, base=base, lr=1e-3)
    report("groups", "thetaone", groups=len(built.param_groups))
    if mup is not None:
        delta = Tokens(384)
        figures = timed(
            lambda: mup.set_base_shapes(target, base, delta=delta, rescale_params=False)
        )
        report("set_base_shapes", "mup", **figures)
        report("groups", "mup", groups=len(mup.MuAdamW(target.parameters(), lr=1e-3).param_groups))


def steps() -> None:
    plain = mlp(512)
    ours = mlp(512)
    first = t1.parametrize(ours, base=mlp(64), optimizer=torch.optim.AdamW, lr=1e-4)
    second = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    report("step, MLP of width 512", "thetaone", **paired(Task(), ours, first, plain, second))
    alike = mlp(512)
    groups = [{"params": [p]} for p in alike.parameters()]  # what as many groups cost in torch
    third = torch.optim.AdamW(groups, lr=1e-4)
    figures = paired(Task(), alike, third, plain, second)
    report("step, MLP of width 512", "plain torch in as many groups", **figures)
    text, narrow = lm.model(256), lm.model(32)
    its = t1.parametrize(text, base=narrow, optimizer=torch.optim.AdamW, lr=1e-4)
    same = lm.model(256)
    beside = torch.optim.AdamW(same.parameters(), lr=1e-4)
    figures = paired(lm, text, its, same, beside, pairs=100)
    report("step, transformer of width 256", "thetaone", **figures)
    if unit_scaling is not None:
        scaled = nn.Sequential(
            unit_scaling.Linear(32, 512), nn.ReLU(), unit_scaling.Linear(512, 512), nn.ReLU(),
            unit_scaling.LinearReadout(512, 10),
        )  # fmt: skip
        fourth = unit_scaling.optim.AdamW(scaled.parameters(), lr=1e-4)
        figures = paired(Task(), scaled, fourth, plain, second)
        report("step, MLP of width 512", "unit-scaling", **figures)


def paired(
    task: Any,
    model: nn.Module, optimizer: torch.optim.Optimizer,
    plain: nn.Module, plain_optimizer: torch.optim.Optimizer, pairs: int = 400,
) -> dict[str, Any]:  # fmt: skip
    batch = next(task.batches(0))

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        start = time.process_time()
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
        return time.process_time() - start

    ratios: list[float] = []
    for pair in range(pairs):
        order = [(model, optimizer), (plain, plain_optimizer)]
        if pair % 2:
            order.reverse()
        seconds = {id(one): step(one, its) for one, its in order}
        ratios.append(seconds[id(model)] / seconds[id(plain)])
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "ratio": round(quartiles[1], 4), "quartiles": [round(q, 4) for q in quartiles[::2]],
        "groups": len(optimizer.param_groups),
    }  # fmt: skip


def monitor() -> None:
    """Steps that are read, beside steps that are not; at the default one in 200 is read."""
    every = inspect.signature(SpectralMonitor).parameters["every"].default
    for name, task, width in (
        ("MLP", Task(), 128), ("MLP", Task(), 512), ("MLP", Task(), 2048), ("transformer", lm, 128),
    ):  # fmt: skip
        watched, plain = task.model(width), task.model(width)
        ours = torch.optim.AdamW(watched.parameters(), lr=1e-4)
        beside = torch.optim.AdamW(plain.parameters(), lr=1e-4)
        with SpectralMonitor(watched, ours, every=1):
            figures = paired(task, watched, ours, plain, beside, pairs=60)
        overhead = (figures["ratio"] - 1) / every
        figures = {"read_step_ratio": figures["ratio"], "overhead": round(overhead, 4)}
        report(f"SpectralMonitor, {name} of width {width}", "thetaone", every=every, **figures)


def check() -> None:
    def run() -> None:
        t1.coordinate_check(Task(), widths=WIDTHS, optimizer="Adam", lr=2**-9, steps=(1, 2, 3))

    report("coordinate check", "thetaone", verdict="layer by layer", **timed(run, repeats=5))
    report("its trainings alone", "plain torch", **timed(trainings, repeats=5))
    if mup is None:
        return
    from mup.coord_check import get_coord_data

    def build(width: int) -> Callable[[], nn.Module]:
        def model() -> nn.Module:
            layers = [*list(mlp(width))[:4], mup.MuReadout(width, 10, bias=False)]
            return mup.set_base_shapes(nn.Sequential(*layers), base_shapes)

        return model

    layers = [[*list(mlp(w))[:4], mup.MuReadout(w, 10, bias=False)] for w in (64, 128)]
    base_shapes = mup.make_base_shapes(*(nn.Sequential(*one) for one in layers))
    batches = [next(Task().batches(0))]
    models = {width: build(width) for width in WIDTHS}

    def beside() -> None:
        get_coord_data(
            models, batches, optimizer="adam", lr=2**-9, nsteps=3, nseeds=3, lossfn="xent",
            cuda=False, flatten_input=True, show_progress=False,
        )  # fmt: skip

    report("coordinate check", "mup", verdict="none: a picture", **timed(beside, repeats=5))


def trainings() -> None:
    """What any check of this size trains: six widths, three seeds, three steps of Adam."""
    for width in WIDTHS:
        for seed in range(3):
            torch.manual_seed(seed)
            model = mlp(width)
            optimizer = torch.optim.Adam(model.parameters(), lr=2**-9)
            batch = next(Task().batches(seed))
            for _ in range(3):
                optimizer.zero_grad()
                Task().loss(model, batch).backward()
                optimizer.step()


if __name__ == "__main__":
    for name, peer in (("mup", mup), ("unit-scaling", unit_scaling)):
        if peer is None:
            report("left out", name, why="not installed")
    program_read()
    setup()
    steps()
    monitor()
    check()
