"""Schedules by their formulas, and every choice of a training loop out of its range."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from thetaone.errors import InputError
from thetaone.records import TrainingLoop, rate_factor, training_loop


def factors(schedule: str, n_steps: int) -> list[float]:
    return [rate_factor(schedule, step, n_steps) for step in range(n_steps)]


def test_cosine_by_hand() -> None:
    expected = [0.5, 1.0, *((1 + math.cos(math.pi * k / 8)) / 2 for k in range(8))]
    assert factors("warmup-cosine:0.2", 10) == pytest.approx(expected)


def test_linear_by_hand() -> None:
    assert factors("warmup-linear:0.2", 10) == pytest.approx(
        [0.5, 1.0, *(1 - k / 8 for k in range(8))]
    )


def test_wsd_is_flat_between_its_ends() -> None:
    expected = [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 0.5]
    assert factors("wsd:0.2", 10) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["constant", "warmup-cosine", "warmup-linear", "wsd:0.3"])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
def test_factors_lie_in_0_to_1_and_reach_1(name: str, n_steps: int) -> None:
    values = factors(name, n_steps)
    assert all(0 < value <= 1 for value in values)
    assert max(values) == 1


def test_a_function_is_tabulated_and_travels() -> None:
    loop = training_loop(n_steps=3, schedule=lambda step, steps: 1 - step / steps)
    again = TrainingLoop.from_json(loop.to_json())
    assert [again.factor(step, 3) for step in range(3)] == [1, 1 - 1 / 3, 1 - 2 / 3]
    assert not again.plain
    with pytest.raises(InputError, match="tabulated for 3 steps and 4 are trained"):
        again.factor(0, 4)


def test_numbers_of_other_libraries_are_numbers() -> None:
    foreign: dict[str, Any] = {"clip": np.float32(0.5), "accumulate": np.int64(2)}
    foreign["schedule"] = lambda step, steps: torch.tensor(0.25)
    loop = training_loop(n_steps=2, **foreign)
    assert loop == TrainingLoop(schedule="function", factors=(0.25, 0.25), clip=0.5, accumulate=2)
    assert TrainingLoop.from_json(loop.to_json()) == loop


def test_a_loop_without_choices_is_plain() -> None:
    assert training_loop(n_steps=5).plain
    assert not training_loop(n_steps=5, clip=1.0).plain


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"clip": 0}, "clip=0: need a norm > 0"),
        ({"clip": -1.0}, "clip=-1"),
        ({"clip": math.nan}, "clip=nan"),
        ({"clip": "1.0"}, r"clip='1\.0': need a norm > 0"),
        ({"clip": True}, "clip=True: need a norm > 0"),
        ({"precision": 16}, "precision=16: choose fp32 or bf16"),
        ({"precision": "fp8"}, "precision='fp8': choose fp32 or bf16"),
        ({"accumulate": 0}, "accumulate=0: need a whole number"),
        ({"accumulate": "2"}, "accumulate='2': need a whole number"),
        ({"accumulate": 1.5}, r"accumulate=1\.5"),
        ({"schedule": "cosine"}, "schedule='cosine': choose constant, warmup-cosine"),
        ({"schedule": "warmup-cosine:2"}, r"must lie in \[0, 1\)"),
        ({"schedule": "constant:0.1"}, "constant takes none"),
        ({"schedule": 3}, "schedule=3: pass a name"),
        ({"schedule": lambda step, steps: math.nan}, r"schedule\(0, 5\) returned nan"),
        ({"schedule": lambda step, steps: 1 - step}, r"schedule\(2, 5\) returned -1"),
        ({"schedule": lambda step, steps: "fast"}, r"schedule\(0, 5\) returned 'fast'"),
        ({"schedule": lambda step, steps: "0.5"}, r"schedule\(0, 5\) returned '0\.5'"),
        (
            {"schedule": lambda step: 1.0},
            r"schedule\(0, 5\) raised TypeError: .*schedule\(step, st",
        ),
        ({"schedule": lambda step, steps: 1 / step}, r"schedule\(0, 5\) raised ZeroDivisionError"),
    ],
)
def test_a_choice_out_of_range(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        training_loop(n_steps=5, **choice)
