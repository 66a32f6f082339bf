"""Set-up, groups, step time and coordinate check beside mup and unit-scaling. One thread.

Run: PYTHONPATH=src python benchmarks/bench_parametrization.py
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1

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
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return {"min_ms": min(times) * 1e3, "median_ms": statistics.median(times) * 1e3}


def report(what: str, who: str, **figures: Any) -> None:
    print(json.dumps({"what": what, "who": who, "torch": torch.__version__, **figures}), flush=True)


def encoder(width: int, heads: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)


def setup() -> None:
    base, target = encoder(192, 3), encoder(768, 12)
    n = sum(p.numel() for p in target.parameters())
    figures = timed(lambda: t1.prescribe(target, base=base))
    report("prescribe", "thetaone", parameters=n, **figures)
    built = t1.parametrize(target, base=base, lr=1e-3)
    report("groups", "thetaone", groups=len(built.param_groups))
    try:
        import mup
    except ImportError as error:
        report("set_base_shapes", "mup", skipped=str(error))
    else:
        delta = encoder(384, 6)
        figures = timed(
            lambda: mup.set_base_shapes(target, base, delta=delta, rescale_params=False)
        )
        report("set_base_shapes", "mup", **figures)
        report("groups", "mup", groups=len(mup.MuAdamW(target.parameters(), lr=1e-3).param_groups))


def steps() -> None:
    """Interleaved, so that other load on the machine hits both alike."""
    ours, plain = mlp(512), mlp(512)
    first = t1.parametrize(ours, base=mlp(64), optimizer=torch.optim.AdamW, lr=1e-4)
    second = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    batch = next(Task().batches(0))

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        Task().loss(model, batch).backward()
        optimizer.step()
        return time.perf_counter() - start

    ratios = [step(ours, first) / step(plain, second) for _ in range(200)]
    report("step", "thetaone", median_ratio_to_plain=statistics.median(ratios), groups=3)
    try:
        import unit_scaling as uu
        import unit_scaling.optim
    except ImportError as error:
        report("step", "unit-scaling", skipped=str(error))
        return
    scaled = nn.Sequential(
        uu.Linear(32, 512), nn.ReLU(), uu.Linear(512, 512), nn.ReLU(), uu.LinearReadout(512, 10)
    )
    third = unit_scaling.optim.AdamW(scaled.parameters(), lr=1e-4)
    ratios = [step(scaled, third) / step(plain, second) for _ in range(200)]
    report(
        "step",
        "unit-scaling",
        median_ratio_to_plain=statistics.median(ratios),
        groups=len(third.param_groups),
    )


def check() -> None:
    def run() -> None:
        t1.coordinate_check(Task(), widths=WIDTHS, optimizer="Adam", lr=2**-9, steps=(1, 2, 3))

    report("coordinate check", "thetaone", **timed(run, repeats=3))


if __name__ == "__main__":
    setup()
    steps()
    check()
