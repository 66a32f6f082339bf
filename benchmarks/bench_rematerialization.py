"""Training step under a memory budget beside torch's own checkpointing, and planner times.

One thread. Rivals: store-all, ``checkpoint_sequential`` with every number of segments, one
checkpoint a block by hand and by transformers, and a compiled model under torch's
``activation_memory_budget``. Ours runs within the measured peak of each of these, within 95 % and
75 % of store-all and 75 % of the least peak that any of them reaches. Peaks come first, from a pass
of their own under the storage tracker; gradients of all schemes are compared bit by bit, of the
compiled ones by tolerance.

Seconds of a busy machine drift, so nothing is compared across minutes. A few rounds of all rivals
say which ones are fastest among those whose peak fits a budget; against these ours is timed in
turns (ours, rival, rival, ours), and a ratio is the median over the turns, with the interval of its
order statistics at 95 %. Beside it stands the least ratio that the plan's bound allows on the
profiled times: no schedule of whole blocks is faster.

Run: ``python benchmarks/bench_rematerialization.py`` (about nine minutes; ``--shard 1/4`` runs the
first quarter of the budgets, ``--part planner`` the planner alone, which needs
``checkpoint-schedules``).
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
    run = partial(step, x=x, weights=weights)
    seconds = timed({name: schemes[name] for name in names}, run, options.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    header = {
        "device": "cpu", "threads": 1, "dtype": "float32", "depth": options.depth,
        "shape": list(x.shape),
    }  # fmt: skip
    first, count = map(int, options.shard.split("/"))
    if first == 1:
        for name in names:
            figures = {"peak_mib": mib(peaks[name]), **spread(seconds[name])}
            record("rematerialization", header | {"scheme": name}, figures)
    for name, budget in list(budgets.items())[first - 1 :: count]:
        assert peaks[name] <= budget, (name, peaks[name], budget)
        line = {
            "budget_mib": mib(budget), "planned_mib": mib(plans[name].peak_bytes),
            "peak_mib": mib(peaks[name]), "forwards": plans[name].forwards,
            "off_plan_mib": mib(abs(peaks[name] - plans[name].peak_bytes)),
        }  # fmt: skip
        fitting = sorted((one for one in names if peaks[one] <= budget), key=medians.__getitem__)
        close = [one for one in fitting if medians[one] <= 1.03 * medians[fitting[0]]][:2]
        turns = {one: in_turns(schemes[name], schemes[one], run, options.repeats) for one in close}
        if turns:
            best = max(turns, key=lambda one: turns[one]["ratio"])
            line |= {"best_rival": best, **turns[best]}
            if (bound := plans[name].bound_seconds) is not None:
                least = bound / planner.store_all.total_seconds
                line["least_ratio"] = round(least * medians["store-all"] / medians[best], 4)
        record("rematerialization", header | {"scheme": "ours", "budget": name}, line)


def in_turns(
    ours: Forward, rival: Forward, run: Callable[[Forward], object], repeats: int
) -> dict[str, float]:
    """Median ratio of CPU seconds, ours to a rival's, over turns of both; its 95 % interval."""
    ratios: list[float] = []
    for _ in range(repeats):
        first, second, third, fourth = (clocked(run, one) for one in (ours, rival, rival, ours))
        ratios.append((first + fourth) / (second + third))
    ratios.sort()
    reach = 0.98 * math.sqrt(repeats)  # ranks of the binomial's quantiles around the median
    low, high = math.floor((repeats - 1) / 2 - reach), math.ceil((repeats - 1) / 2 + reach)
    ends = {"ratio_low": ratios[max(0, low)], "ratio_high": ratios[min(repeats - 1, high)]}
    return {
        "ratio": round(statistics.median(ratios), 4),
        **{name: round(value, 4) for name, value in ends.items()},
    }


def clocked(
    run: Callable[[Forward], object],
    forward: Forward,
    clock: Callable[[], float] = time.process_time,
) -> float:
    started = clock()
    run(forward)
    return clock() - started


def timed(
    schemes: dict[str, Forward],
    run: Callable[[Forward], object],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each scheme by a clock, one of each a round; the order is drawn anew."""
    order, shuffle = list(schemes), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in schemes}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            seconds[name].append(clocked(run, schemes[name], clock))
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
    parser.add_argument("--rounds", type=int, default=6, help="of all rivals")
    parser.add_argument("--repeats", type=int, default=20, help="turns with the fastest rivals")
    parser.add_argument("--shard", default="1/1", help="which part of the budgets, as 1/4")
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
