"""What the rows of the GPU check share: their arguments, a clock that waits, the device's peak."""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import thetaone as t1

Step = Callable[[], object]


def run(measure: Callable[..., Mapping[str, Any]]) -> None:
    """Call ``measure(device, toy)`` and print what it returns as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true", help="sizes that a CPU does in seconds")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.device == "cpu":
        torch.set_num_threads(1)  # as the tests: sums in one order, no quarrel over cores
    print(json.dumps(measure(torch.device(options.device), toy=options.toy)), flush=True)


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def interleaved(
    steps: Mapping[str, Step], device: torch.device, rounds: int, warmups: int = 3
) -> dict[str, list[float]]:
    """Wall seconds of each step, one of each a round, in an order drawn anew."""
    order, shuffle = list(steps), random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmups + rounds):
        shuffle(order)
        for name in order:
            synchronize(device)
            start = time.perf_counter()
            steps[name]()
            synchronize(device)
            if turn >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 3)


def paired_ratio(mine: list[float], other: list[float]) -> float:
    """Median over rounds of one step's time by the other's in the same round."""
    return round(statistics.median(a / b for a, b in zip(mine, other, strict=True)), 4)


def activation_peak(model: nn.Module, step: Step, device: torch.device) -> int:
    """Most bytes of one step above weights and gradients: ``max_memory_allocated`` on CUDA.

    Elsewhere the storage tracker's, which sees tensors but no kernel's workspace.
    """
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step()  # what libraries allocate once stays allocated
    if device.type != "cuda":
        with t1.TrainingMemory(model) as memory:
            step()
        return memory.activation_peak_bytes
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
