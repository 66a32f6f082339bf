"""Training step under a memory budget beside torch's own checkpointing, and planner times.

One run, one thread, rounds of all schemes in random order, after a warm-up: store-all,
``checkpoint_sequential`` with every number of segments, one checkpoint a block by hand and by
transformers, and ours within the measured peak of each of these, within 95 % and 75 % of store-all
and 75 % of the least peak that any of them reaches; beside them a compiled model under torch's
``activation_memory_budget``. Peaks come first, from a pass of their own under the storage tracker.
Every budget is compared with the fastest rival whose measured peak fits it; ratios are medians over
rounds of CPU seconds within the same round. Gradients of all schemes are compared bit by bit, of
the compiled ones by tolerance.

Run: ``python benchmarks/bench_rematerialization.py`` (about ten minutes; ``--part planner`` for the
planner alone, which needs ``checkpoint-schedules``).
"""

import argparse
import math
import random
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from origin import record
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from thetaone.records import Chain, DiskCost, Stage
from thetaone.rematerialization import (
    Planner,
    TrainingMemory,
    profile,
    rematerialize,
    revolve,
)

Forward = Callable[[Tensor], Tensor]
MIB = 2**20


class Block(nn.Module):
    """A pre-norm transformer block: causal attention and a perceptron four times as wide."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.project, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def per_block(model: nn.Sequential, x: Tensor) -> Tensor:
    for block in model:
        x = checkpoint(block, x, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
    return x


def step(forward: Forward, x: Tensor, weights: Tensor) -> None:
    output = forward(x)  # held through the backward, as in most training loops
    (output * weights).sum().backward()


def peak(model: nn.Module, forward: Forward, x: Tensor, weights: Tensor) -> int:
    with TrainingMemory(model) as memory:
        step(forward, x, weights)
    return memory.activation_peak_bytes


def rivals(model: nn.Sequential) -> dict[str, Forward]:
    found: dict[str, Forward] = {"store-all": model}
    for count in range(2, len(model) + 1):
        found[f"segments {count}"] = partial(
            checkpoint_sequential, model, count, use_reentrant=False
        )
    found["per block"] = partial(per_block, model)
    found["transformers, per block"] = transformers_per_block(model)
    return found


def transformers_per_block(model: nn.Sequential) -> Forward:
    """Hugging Face's own layer that checkpoints itself, around each block."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    class Layer(GradientCheckpointingLayer):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block, self.gradient_checkpointing = block, True
            self._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x)

    return nn.Sequential(*map(Layer, model))


def compiled_within(model: nn.Sequential, share: float) -> Forward:
    """torch's own budget: a compiled model whose partitioner may keep a share of activations.

    With the backend that needs no C compiler; its kernels are those of eager mode.
    """
    compiled = torch.compile(model, backend="aot_eager_decomp_partition")

    def run(x: Tensor) -> Tensor:
        with functorch_config.patch(activation_memory_budget=share):
            return compiled(x)

    return run


def gradients(model: nn.Module, run: Callable[[], object]) -> list[Tensor]:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def training(options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[Block(options.width, 4) for _ in range(options.depth)])
    x, weights = torch.randn(2, 2, options.length, options.width).unbind()
    schemes = rivals(model)
    compiled = {
        f"activation_memory_budget {share}": compiled_within(nn.Sequential(*model), share)
        for share in (0.75, 0.5, 0.25)
    }
    schemes |= compiled
    expected = gradients(model, partial(step, model, x, weights))
    step(schemes["per block"], x, weights)  # torch's first checkpoint imports its compiler
    peaks = {name: peak(model, forward, x, weights) for name, forward in schemes.items()}
    eager = {name: size for name, size in peaks.items() if name not in compiled}
    floor = min(eager.values())
    budgets = {f"within {name}": size for name, size in eager.items()}
    budgets |= {
        "95 % of store-all": int(0.95 * peaks["store-all"]),
        "75 % of store-all": int(0.75 * peaks["store-all"]),
        "75 % of their floor": int(0.75 * floor),
    }
    planner = Planner(profile(model, x))
    plans = {name: planner.plan(budget) for name, budget in budgets.items()}
    names = list(schemes)
    for name, schedule in plans.items():
        forward = rematerialize(nn.Sequential(*model), schedule)
        peaks[name], schemes[name] = peak(model, forward, x, weights), forward
    for name, forward in schemes.items():
        found = gradients(model, partial(step, forward, x, weights))
        same = torch.allclose if name in compiled else torch.equal  # decomposed kernels round
        assert all(map(same, found, expected)), f"{name}: other gradients"
    seconds = timed(schemes, lambda forward: step(forward, x, weights), options.repeats)
    header = {
        "device": "cpu", "threads": 1, "dtype": "float32", "depth": options.depth,
        "shape": list(x.shape),
    }  # fmt: skip
    for name in names:
        figures = {"peak_mib": mib(peaks[name]), **spread(seconds[name])}
        record("rematerialization", header | {"scheme": name}, figures)
    for name, budget in budgets.items():
        fitting = [rival for rival in names if peaks[rival] <= budget]
        best = min(fitting, key=lambda rival: statistics.median(seconds[rival]), default=None)
        line = {
            "budget_mib": mib(budget), "planned_mib": mib(plans[name].peak_bytes),
            "peak_mib": mib(peaks[name]),
            "forwards": plans[name].forwards, **spread(seconds[name]), "best_rival": best,
        }  # fmt: skip
        if best is not None:
            pairs = zip(seconds[name], seconds[best], strict=True)
            line["ratio"] = round(statistics.median(a / b for a, b in pairs), 4)
        assert peaks[name] <= budget, line
        record("rematerialization", header | {"scheme": "ours", "budget": name}, line)


def timed(
    schemes: dict[str, Forward],
    run: Callable[[Forward], object],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each scheme by a clock, one of each a round; the order is drawn anew."""
    order, shuffle = list(schemes), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in schemes}
    for _ in range(repeats):
        shuffle(order)
        for name in order:
            started = clock()
            run(schemes[name])
            seconds[name].append(clock() - started)
    return seconds


def spread(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    found = {"median_s": middle, "quartile_low_s": low, "quartile_high_s": high}
    return {name: round(value, 4) for name, value in found.items()}


def mib(size: int) -> float:
    return round(size / MIB, 3)


def equal(length: int) -> Chain:
    stage = Stage(
        name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=MIB,
        tape_bytes=16 * MIB, backward_scratch_bytes=3 * MIB,
    )  # fmt: skip
    return Chain(input_bytes=MIB, stages=(stage,) * length)


def unlike(length: int) -> Chain:
    draw = random.Random(0)
    stages = tuple(
        Stage(
            name=f"block {k}", forward_seconds=draw.uniform(0.5, 2),
            backward_seconds=draw.uniform(1, 4), output_bytes=draw.randint(MIB // 4, 2 * MIB),
            tape_bytes=draw.randint(2 * MIB, 32 * MIB),
            backward_scratch_bytes=draw.randint(0, 2 * MIB),
        )
        for k in range(length)
    )  # fmt: skip
    return Chain(input_bytes=MIB, stages=stages)


def planning(options: argparse.Namespace) -> None:
    """Seconds to plan from nothing; wall and CPU, each in turn, best of the repeats."""
    from checkpoint_schedules import Revolve

    def ours(chain: Chain) -> int:
        planner = Planner(chain, 500)
        return planner.plan(planner.store_all.peak_bytes // 2).forwards

    def peer(length: int, slots: int) -> int:
        schedule = Revolve(length, slots)
        moved = (getattr(action, "n1", 0) - getattr(action, "n0", 0) for action in schedule
                 if type(action).__name__ == "Forward")  # fmt: skip
        return sum(moved)

    def binomial(length: int, slots: int) -> int:
        return revolve(equal(length), slots).forwards

    cases: dict[str, Callable[[], int]] = {
        "ours, 100 equal blocks, 500 units": partial(ours, equal(100)),
        "ours, 100 unlike blocks, 500 units": partial(ours, unlike(100)),
        "ours, 1000 equal blocks, 500 units": partial(ours, equal(1000)),
    }
    for length, slots in [(100, 10), (1000, 10), (1000, 30)]:
        case = f"{length} steps, {slots} slots"
        cases[f"ours, binomial, {case}"] = partial(binomial, length, slots)
        cases[f"checkpoint-schedules Revolve, {case}"] = partial(peer, length, slots)
    for name, run in cases.items():
        wall, processor, forwards = best_of(run, options.planner_repeats)
        report(name, wall, processor, forwards)
    disk = DiskCost(write_bytes_per_second=4.0 * MIB, read_bytes_per_second=4.0 * MIB)
    quota = disk.model_copy(update={"quota_bytes": 200 * MIB})

    def both(chain: Chain, cost: DiskCost) -> int:
        planner = Planner(chain, 500, disk=cost)
        return planner.plan(planner.store_all.peak_bytes // 50).forwards

    once: dict[str, Callable[[], int]] = {
        "ours with a disk, 100 equal blocks": partial(both, equal(100), disk),
        "ours with a disk, 300 unlike blocks": partial(both, unlike(300), disk),
        "ours with a disk and a quota, 300 unlike blocks": partial(both, unlike(300), quota),
        "ours with a disk, 1000 equal blocks": partial(both, equal(1000), disk),
        "ours with a disk and a quota, 1000 equal blocks": partial(both, equal(1000), quota),
        "ours, 1000 unlike blocks, 500 units": partial(ours, unlike(1000)),
    }
    for name, run in once.items():
        report(name, *best_of(run, 1))


def best_of(run: Callable[[], int], repeats: int) -> tuple[float, float, int]:
    wall, processor, result = math.inf, math.inf, 0
    for _ in range(repeats):
        started, used = time.perf_counter(), time.process_time()
        result = run()
        wall = min(wall, time.perf_counter() - started)
        processor = min(processor, time.process_time() - used)
    return wall, processor, result


def report(name: str, wall: float, processor: float, forwards: int) -> None:
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = {
        "wall_s": round(wall, 4), "cpu_s": round(processor, 4), "forwards": forwards,
        "resident_gib": round(resident, 2),
    }  # fmt: skip
    record("planner", {"case": name}, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["training", "planner", "both"], default="both")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--planner-repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--depth", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part != "planner":
        training(options)
    if options.part != "training":
        planning(options)


if __name__ == "__main__":
    main()
