"""The coordinate check under the task's own loop: schedule, clipping, precision, accumulation."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError
from thetaone.records import CLIPPING, DECAY, FEATURE_UPDATE, OWN_UPDATE, UPDATE_NORM, Record

WIDTHS = (16, 32, 64)


class Products:
    """Two hidden layers on the largest of products."""

    def model(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8)
        )

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(64, 16, generator=generator)
            yield x, (x[:, :8] * x[:, 8:]).argmax(1)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def check(**changes: Any) -> t1.CoordinateCheck:
    asked: dict[str, Any] = {
        "widths": WIDTHS, "optimizer": "SGD", "lr": 0.05, "seeds": 2, "max_seeds": 2, "steps": (1,),
    }  # fmt: skip
    return t1.coordinate_check(Products(), **asked | changes)


def values(result: t1.CoordinateCheck, *quantities: str) -> dict[tuple[str, str], Tensor]:
    return {
        (row.layer, row.quantity): torch.tensor(row.values, dtype=torch.float64)
        for row in result.rows
        if row.quantity in quantities
    }


def test_clipping_is_the_norm_by_hand_and_is_divided_out_of_sgds_updates() -> None:
    """A clipped first step is c = clip/‖g‖ times the plain one: over c it is the plain one."""
    clip, updates = 0.05, (UPDATE_NORM, OWN_UPDATE)
    clipped, plain = check(clip=clip), check()
    expected = values(plain, *updates)
    for key, moved in values(clipped, *updates).items():
        assert torch.allclose(moved, expected[key], rtol=1e-2), key
    (row,) = (row for row in clipped.rows if row.quantity == CLIPPING)
    task, base = Products(), Products().model(WIDTHS[0])
    for seed, of_seed in enumerate(row.values):
        for width, kept in zip(WIDTHS, of_seed, strict=True):
            torch.manual_seed(seed)
            model = task.model(width)
            t1.parametrize(model, base=base, optimizer="SGD", lr=0.05)
            task.loss(model, next(task.batches(seed))).backward()
            norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            assert kept == pytest.approx(clip / norm.norm().item(), rel=0.1)  # of another base
    assert not values(plain, CLIPPING)


def test_a_norm_that_grows_with_width_fails_for_sgd_alone() -> None:
    """Its readout's gradient grows as √width: where it is clipped the best rate moves."""
    sgd = check(clip=0.05, widths=(32, 128, 512), seeds=3)
    assert {row.quantity for row in sgd.failures} == {CLIPPING}
    assert "clipping leaves less of each step of the larger model" in sgd.failures[0].cause
    assert check(clip=100.0).passed  # above what occurs
    adam = check(clip=0.05, optimizer="AdamW", lr=2**-8)
    assert not values(adam, CLIPPING)
    assert adam.passed


def test_the_first_steps_of_the_schedule_are_taken() -> None:
    """SGD's first update is the schedule's first factor times the plain one."""
    warming = values(check(schedule="warmup-linear:0.2", training_steps=20), UPDATE_NORM)
    for key, moved in values(check(), UPDATE_NORM).items():
        assert torch.allclose(4 * warming[key], moved, rtol=5e-3), key
    assert check(schedule="warmup-linear:0.2", steps=(1, 3)).passed


def test_a_moment_before_anything_moves_is_left_out() -> None:
    late = check(schedule=lambda step, steps: float(step >= 2), steps=(1, 2, 3))
    assert {row.step for row in late.rows if row.quantity == FEATURE_UPDATE} == {3}
    assert late.passed
    with pytest.raises(InputError, match=r"factor is 0 in all of them.*pass later steps"):
        check(schedule=lambda step, steps: float(step >= 2), steps=(1, 2))


def test_parts_of_a_batch_move_what_the_whole_batch_moves() -> None:
    whole = values(check(), UPDATE_NORM, FEATURE_UPDATE)
    for key, moved in values(check(accumulate=4), UPDATE_NORM, FEATURE_UPDATE).items():
        assert torch.allclose(moved, whole[key], rtol=5e-3), key


def test_steps_in_bf16_are_measured_without_its_rounding() -> None:
    """Near the plain ones: updates read off bf16 weights would be mostly rounding."""
    plain = values(check(lr=2**-10), UPDATE_NORM)
    for key, moved in values(check(lr=2**-10, precision="bf16"), UPDATE_NORM).items():
        assert torch.allclose(moved, plain[key], rtol=0.05), key


def test_decay_is_that_of_the_rates_that_were_taken() -> None:
    """Whether decay is a part of an update does not depend on a factor on both."""
    adam: dict[str, Any] = {"optimizer": "AdamW", "lr": 2**-8, "weight_decay": 1.0, "steps": (3,)}
    plain = set(values(check(**adam), DECAY))
    assert plain
    slow = check(**adam, schedule=lambda step, steps: 0.01 if step == 2 else 1.0)
    assert set(values(slow, DECAY)) == plain


def test_the_task_says_it_and_the_record_keeps_it() -> None:
    task = type("Clipped", (Products,), {"clip": 0.05, "accumulate": 2, "steps": 7})()
    said = t1.coordinate_check(task, widths=WIDTHS, lr=0.05, optimizer="SGD", seeds=2, max_seeds=2)
    assert (said.loop.clip, said.loop.accumulate) == (0.05, 2)
    assert "lr 0.05, clip 0.05, accumulate 2, width" in str(said).splitlines()[0]
    assert isinstance(said.loop, Record)
    assert t1.CoordinateCheck.from_json(said.to_json()) == said


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ({"clip": 0}, "clip=0: need a norm > 0"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"accumulate": 3}, r"accumulate=3: tensors of a batch have \[64\] rows"),
        ({"schedule": lambda step, steps: -1.0}, r"schedule\(0, 100\) returned -1"),
    ],
)
def test_a_bad_loop_is_refused(loop: dict[str, Any], message: str) -> None:
    with pytest.raises(t1.ThetaOneError, match=message):
        check(**loop)


@pytest.mark.parametrize("steps", ["many", 0, 2.5, [3]])
def test_a_task_with_steps_that_are_no_number_is_refused(
    steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Products, "steps", steps, raising=False)
    with pytest.raises(InputError, match=r"steps=.*: need whole numbers from 1"):
        check()
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"steps=.*: need whole numbers from 1"):
        check(training_steps=steps)
