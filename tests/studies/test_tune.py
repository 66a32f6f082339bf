"""Tuned options: what is kept on losses whose truth is a formula, and that the target gets it."""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError
from thetaone.records import EngineDecision, Optimum, SweepResult, Trial, TrialSpec, TunedOption
from thetaone.studies._tune import judge
from thetaone.sweeps import combine

RATES = [2.0**power for power in (-8, -7, -6)]
VALUES, WIDTHS = (0.0, 0.1, 1.0), (16, 32, 64)
BEST = Optimum(log2_lr=-7.0, stderr=0.1, interval=(-7.5, -6.5), loss=1.0)


def swept(
    effect: Callable[[int, float], float], *, scatter: float = 0.002, seeds: int = 3
) -> SweepResult:
    """Loss 1 + (log2 rate + 7)²/20 + the option's effect; noise of its own in every training."""
    draw = random.Random(0)
    trials = [
        Trial(
            spec=TrialSpec(
                width=width, lr=lr, seed=seed, n_steps=1, rule="mup",
                axes=(("weight_decay", value),),
            ),
            losses=(
                1 + (math.log2(lr) + 7) ** 2 / 20 + effect(width, value) + draw.gauss(0, scatter),
            ),
            status="finished",
        )
        for width in WIDTHS for value in VALUES for lr in RATES for seed in range(seeds)
    ]  # fmt: skip
    return SweepResult(
        task="formula", parametrization="mup", optimizer="AdamW", base_width=64,
        trials=tuple(trials), engine=EngineDecision(engine="none", reason="a formula"),
        n_trained=len(trials), n_reused=0, wall_seconds=0.0, axes={"weight_decay": VALUES},
        combinations=combine(trials, 64, "width", "loss"),
    )  # fmt: skip


def test_a_better_value_is_kept_with_its_gain() -> None:
    option, best = judge(swept(lambda _, value: 0.05 * (value != 0.1)), "weight_decay", 0.0, BEST)
    assert (option.kept, option.before, option.value) == (True, 0.0, 0.1)
    assert option.gain == pytest.approx(0.05, abs=4 * option.stderr)
    assert option.best == dict.fromkeys(WIDTHS, 0.1)
    assert best.log2_lr == pytest.approx(-7, abs=0.1)
    assert "0 → 0.1; " in str(option)


@pytest.mark.parametrize(
    ("effect", "scatter", "current", "why"),
    [
        (lambda width, value: 0.05 * (value != 0.1), 0.002, 0.1, "the best of them"),
        (lambda width, value: 0.0, 0.3, 0.0, "no other is better by more than its standard error"),
        (lambda width, value: 0.05 * (value != (1.0 if width == 64 else 0.0)), 0.001, 0.1,
         "the best value moves with width"),
        (lambda width, value: 0.05 * ((value == 0.1) == (width < 64)), 0.0001, 0.0,
         "0.1 is worse at width 16"),
    ],
)  # fmt: skip
def test_what_is_not_better_everywhere_is_not_kept(
    effect: Callable[[int, float], float], scatter: float, current: float, why: str
) -> None:
    option, best = judge(swept(effect, scatter=scatter), "weight_decay", current, BEST)
    assert (option.kept, option.value, option.why, best) == (False, current, why, BEST)
    assert f"{current:g} stays: {why}" in str(option)


def test_a_value_that_diverges_is_not_kept() -> None:
    effect = lambda _, value: math.inf if value == 0.1 else 0.0  # noqa: E731
    option, _ = judge(swept(effect), "weight_decay", 0.0, BEST)
    assert option.value != 0.1


class Ravine:
    """Least squares of very different curvatures: momentum wins within a rate's reach."""

    def model(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.Linear(width, 1))

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        scale = torch.logspace(0, -1.5, 8)
        while True:
            x = torch.randn(64, 8, generator=generator) * scale
            yield x, (x / scale).sum(1, keepdim=True)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()


def test_the_target_is_plain_pytorch_with_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    result = t1.transfer(
        Ravine(), widths=[8, 16], target=32, lrs=[2.0**p for p in (-9, -8, -7)], seeds=[0, 1],
        steps=40, optimizer="SGD", tune=["momentum"], engine="serial", report=tmp_path,
    )  # fmt: skip
    (option,) = result.tuned
    assert option.kept, str(option)
    assert option.n_trials == 5 * 3 * 2 * 2
    torch.manual_seed(0)
    task = Ravine()
    model, batches, losses = task.model(32), task.batches(0), []
    optimizer = torch.optim.SGD(model.parameters(), lr=result.chosen_lr, momentum=option.value)
    for _ in range(40):
        loss = task.loss(model, next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert tuple(losses) == result.target.losses
    assert t1.Recipe.load(tmp_path / "recipe.json").groups[0].options["momentum"] == option.value
    assert f"momentum = {option.value}" in (tmp_path / "run.toml").read_text()
    assert "tuned momentum" in str(result)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": ["inits"]}, r"tune=inits: choose among weight_decay, .*Did you mean 'init'"),
        ({"tune": ["momentum"]}, r"axis momentum: neither"),
        ({"tune": ["beta2"], "seeds": [0]}, r"tune=beta2 with one seed: two or more"),
        ({"tune": ["beta2"], "tune_trials": 5}, r"takes 60 trainings .* the budget is 5"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_trained(
    options: dict, message: str
) -> None:
    call = {"widths": [8, 16], "target": 32, "lrs": [0.1, 0.2, 0.4], "seeds": [0, 1], **options}
    with pytest.raises(InputError, match=message):
        t1.transfer(Ravine(), **call)


class Loud(Ravine):
    """Its initial weights are four times too large."""

    def model(self, width: int) -> nn.Module:
        model = nn.Sequential(
            nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(4.0 if p.ndim == 2 else 1.0)
        return model


CALL = {"widths": [8, 16], "target": 32, "lrs": [2.0**p for p in (-8, -7, -6)], "seeds": [0, 1],
        "steps": 40, "optimizer": "Adam", "engine": "serial"}  # fmt: skip


def test_a_smaller_start_is_kept_and_the_recipe_trains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    result = t1.transfer(Loud(), tune=["init"], report=tmp_path, **CALL)
    (option,) = result.tuned
    assert (option.name, option.kept) == ("init_scale", True), str(option)
    assert option.value < 1
    recipe = t1.Recipe.load(tmp_path / "recipe.json")
    assert not recipe.plain
    torch.manual_seed(0)
    task = Loud()
    model, batches, losses = task.model(32), task.batches(0), []
    drawn = {name: p.square().mean().sqrt().item() for name, p in model.named_parameters()}
    optimizer = recipe.optimizer(model)
    for name, p in model.named_parameters():
        factor = option.value if p.ndim == 2 else 1.0
        # The size is that of the base's n draws: two RMS of n uniform ones differ by 0.6/√n.
        near = pytest.approx(factor * drawn[name], rel=min(0.3, 2.2 / p.numel() ** 0.5))
        assert p.square().mean().sqrt().item() == near
    for _ in range(40):
        loss = task.loss(model, next(batches))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert tuple(losses) == result.target.losses
    assert 'tune = "init"' in (tmp_path / "run.toml").read_text()
    assert "train your model by recipe.json" in str(result)


def test_a_readouts_factor_in_groups_is_that_factor_in_the_forward_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folded into initial values and the readout's rate it trains what 2·W h trains."""
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    monkeypatch.setattr("thetaone.studies._tune.judge", keeps_two)
    result = t1.transfer(Loud(), tune=["readout"], report=tmp_path, **{**CALL, "steps": 15})
    recipe, task = t1.Recipe.load(tmp_path / "recipe.json"), Loud()
    torch.manual_seed(0)
    start: Any = task.model(32)
    folded: Any = task.model(32)
    folded.load_state_dict(start.state_dict())
    recipe.optimizer(folded)
    with torch.no_grad():
        start[4].weight.copy_(folded[4].weight / 2)
    optimizer = torch.optim.Adam(start.parameters(), lr=recipe.lr)
    batches, losses = task.batches(0), []
    for _ in range(15):
        x, y = next(batches)
        hidden = start[:4](x)
        out = 2 * nn.functional.linear(hidden, start[4].weight) + start[4].bias
        loss = (out - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result.target.losses == pytest.approx(losses, rel=1e-4)
    assert {group.lr / recipe.lr for group in recipe.groups} == {1.0, 2.0}


def keeps_two(
    result: SweepResult, name: str, current: float, best: Optimum
) -> tuple[TunedOption, Optimum]:
    option, _ = judge(result, name, current, best)
    return option.model_copy(update={"kept": True, "value": 2.0}), best


class Tied(Ravine):
    """Embedding and readout are one weight."""

    def model(self, width: int) -> nn.Module:
        embedding, head = nn.Embedding(8, width), nn.Linear(width, 8)
        head.weight = embedding.weight
        return nn.Sequential(embedding, nn.LayerNorm(width), head)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            tokens = torch.randint(8, (2, 16), generator=generator)
            yield tokens[0], tokens[1]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_a_factor_of_weights_that_are_not_there_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(InputError, match="no weights in the role 'output' alone"):
        t1.transfer(Tied(), tune=["readout"], **CALL)
