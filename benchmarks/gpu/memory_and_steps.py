"""A plan's bytes against the device's allocator, and its step time beside other schemes.

Four budgets, the last one the floor. Schemes: store-all, a schedule of
one region a block, Hugging Face's own ``gradient_checkpointing_enable``, and ours within the bytes
of one region a block. Gradients of all of them are compared with store-all's, bit by bit, under
deterministic kernels (attention's backward adds in any order otherwise).
"""

import copy
from typing import Any

import torch
from row import activation_peak, interleaved, median_ms, paired_ratio, run
from torch import Tensor, nn
from transformer import BLOCKS, decoder, tokens, training_step

import thetaone as t1
from thetaone.records import Schedule
from thetaone.rematerialization import Planner
from thetaone.rematerialization.planning._policies import per_block

FRACTIONS = (0.6, 0.3, 0.1, 0.0)


def gradients(model: nn.Module, step: Any) -> list[Tensor]:
    model.zero_grad()
    torch.use_deterministic_algorithms(True)
    step()
    torch.use_deterministic_algorithms(False)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def measure(device: torch.device, *, toy: bool) -> dict[str, Any]:
    model, inputs = decoder(device, toy=toy), tokens(device, toy=toy)
    step = training_step(model, inputs)
    expected = gradients(model, step)
    chain = t1.profile(model, blocks=BLOCKS, **inputs)
    planner = Planner(chain)
    whole = planner.store_all.peak_bytes
    floor = planner.floor.peak_bytes
    budgets = {
        f"floor + {fraction:.0%} of the way to store-all": floor + int(fraction * (whole - floor))
        for fraction in FRACTIONS
    }
    repeated = all(map(torch.equal, gradients(model, step), expected))
    rows: dict[str, Any] = {"store-all": compare(model, step, planner.store_all, expected, device)}
    for name, budget in budgets.items():
        rows[name] = compare(model, step, planner.plan(budget), expected, device)
    blockwise = per_block(chain)
    ours = planner.plan(blockwise.peak_bytes)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "plain_step_repeats_bitwise": repeated,
        "one region a block, planned_bytes": blockwise.peak_bytes,
        "shape": list(inputs["input_ids"].shape), "budgets": rows,
        "steps": schemes(inputs, blockwise, ours, device, toy=toy),
    }  # fmt: skip


def compare(
    model: nn.Module, step: Any, schedule: Schedule, expected: list[Tensor], device: torch.device
) -> dict[str, Any]:
    """Planned bytes beside those of the step, and whether its gradients are store-all's."""
    t1.rematerialize(model, schedule, blocks=BLOCKS)
    equal = all(map(torch.equal, gradients(model, step), expected))
    peak = activation_peak(model, step, device)
    return {
        "planned_bytes": schedule.peak_bytes, "measured_bytes": peak,
        "measured_to_planned": round(peak / schedule.peak_bytes, 4),
        "forwards": schedule.forwards, "gradients_bitwise_equal": equal,
    }  # fmt: skip


def schemes(
    inputs: dict[str, Tensor], blockwise: Schedule, ours: Schedule, device: torch.device, *,
    toy: bool,
) -> dict[str, Any]:  # fmt: skip
    """Median step time and peak of each scheme, and its ratio to store-all in the same round."""
    plain = decoder(device, toy=toy)
    models = {
        "store-all": plain,
        "one region a block": copy.deepcopy(plain),
        "Hugging Face's checkpointing": copy.deepcopy(plain),
        "ours within the same bytes": copy.deepcopy(plain),
    }
    t1.rematerialize(models["one region a block"], blockwise, blocks=BLOCKS)
    t1.rematerialize(models["ours within the same bytes"], ours, blocks=BLOCKS)
    models["Hugging Face's checkpointing"].gradient_checkpointing_enable()
    steps = {name: training_step(model, inputs) for name, model in models.items()}
    peaks = {name: activation_peak(model, steps[name], device) for name, model in models.items()}
    seconds = interleaved(steps, device, rounds=3 if toy else 15)
    return {
        name: {
            "median_ms": median_ms(seconds[name]), "peak_bytes": peaks[name],
            "to_store_all": paired_ratio(seconds[name], seconds["store-all"]),
        }
        for name in models
    }  # fmt: skip


if __name__ == "__main__":
    run(measure)
