import math
from typing import Any

import pytest
import torch
from torch import nn
from toy import Normalizing, Short, Toy, adam, toy_grid

from thetaone.errors import TaskError
from thetaone.records import TrialSpec
from thetaone.sweeps import MakeOptimizer, Work, split_batch
from thetaone.sweeps._trials import train_trial
from thetaone.sweeps.engines._stacked import train_stack
from thetaone.sweeps.engines._stacked_update import NotStackableError, make_update, read_hypers


def by_hand(spec: TrialSpec, make_optimizer: MakeOptimizer) -> list[float]:
    """The loop that every tutorial shows."""
    task = Toy()
    torch.manual_seed(spec.seed)
    model = task.model(spec.width)
    optimizer = make_optimizer(model, spec.width, spec.lr)
    losses = []
    for _, batch in zip(range(spec.n_steps), task.batches(spec.seed), strict=False):
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def grouped(kind: type[torch.optim.Optimizer], **options: float) -> MakeOptimizer:
    """An optimizer whose groups differ in rate, as µP's do."""

    def make(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        first, *rest = model.parameters()
        groups = [{"params": [first], "lr": lr / 2}, {"params": rest}]
        return kind(groups, lr=lr, **options)  # pyright: ignore[reportCallIssue]

    return make


def test_a_trial_is_plain_torch_to_the_bit_and_leaves_the_rng_alone() -> None:
    spec = toy_grid()[3]
    expected = by_hand(spec, adam)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    trial = train_trial(Work(task=Toy(), make_optimizer=adam), spec)
    assert list(trial.losses) == expected
    assert torch.equal(torch.get_rng_state(), before)
    assert (trial.status, trial.n_parameters) == ("finished", 4 * 4 + 4 + 4 + 1)
    assert trial.spec == spec


def test_divergence_is_a_result_and_ends_the_trial() -> None:
    (spec,) = toy_grid(widths=[8], powers=[6], seeds=[0], n_steps=200)
    trial = train_trial(Work(task=Toy(), make_optimizer=grouped(torch.optim.SGD)), spec)
    assert trial.status == "diverged"
    assert trial.final_loss == math.inf
    assert 1 < len(trial.losses) < 200
    assert f"at step {len(trial.losses) - 1}" in trial.reason


def test_batches_that_end_too_early() -> None:
    with pytest.raises(TaskError, match=r"batches\(0\) ended after 3 of 10 steps: make it endless"):
        train_trial(Work(task=Short(), make_optimizer=adam), toy_grid()[0])


@pytest.mark.parametrize(
    "make_optimizer",
    [
        grouped(torch.optim.SGD),
        grouped(torch.optim.SGD, momentum=0.9, weight_decay=0.1),
        grouped(torch.optim.Adam),
        grouped(torch.optim.Adam, weight_decay=0.1, eps=1e-3),
        grouped(torch.optim.AdamW, weight_decay=0.3),
    ],
    ids=["sgd", "sgd-momentum", "adam", "adam-l2", "adamw"],
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_stack_trains_as_one_by_one(
    make_optimizer: MakeOptimizer, seeds: tuple[int, ...]
) -> None:
    specs = toy_grid(widths=[8], powers=[-8, -6, -4], seeds=seeds, n_steps=30)
    together = list(train_stack(Work(task=Toy(), make_optimizer=make_optimizer), specs))
    for spec, trial in zip(specs, together, strict=True):
        alone = train_trial(Work(task=Toy(), make_optimizer=make_optimizer), spec)
        assert trial.spec == spec
        assert trial.n_parameters == alone.n_parameters
        assert trial.losses == pytest.approx(alone.losses, rel=2e-5)
        assert alone.losses[-1] != pytest.approx(alone.losses[0], rel=1e-3)  # it did train


@pytest.mark.parametrize("n_features", [8, 80])  # short rows and long ones
@pytest.mark.parametrize("one_group", [True, False])
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (torch.optim.SGD, {}),
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        (torch.optim.Adam, {"weight_decay": 0.1, "eps": 1e-3}),
        (torch.optim.AdamW, {"weight_decay": 0.3, "betas": (0.8, 0.95)}),
    ],
)
def test_equal_gradients_give_equal_parameters(
    cls: Any, options: dict[str, Any], one_group: bool, n_features: int
) -> None:
    def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        first, *rest = model.parameters()
        if one_group:
            return cls([first, *rest], lr=lr, **options)
        return cls([{"params": [first], "lr": lr / 3}, {"params": rest}], lr=lr, **options)

    models = [nn.Linear(n_features, n_features) for _ in range(3)]
    optimizers = [optimizer(model, lr) for model, lr in zip(models, (1e-3, 0.01, 0.3), strict=True)]
    p_kp = torch.stack([nn.utils.parameters_to_vector(m.parameters()).detach() for m in models])
    update = make_update(read_hypers(models, optimizers), p_kp)
    rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    for step in range(20):
        g_kp = torch.randn_like(p_kp) * 10.0 ** -(step % 7)
        factor = 1 / (1 + step)
        for model, one, g_p, own in zip(models, optimizers, g_kp, rates, strict=True):
            for p, g in zip(model.parameters(), g_p.split([p.numel() for p in model.parameters()]),
                            strict=True):  # fmt: skip
                p.grad = g.view_as(p).clone()
            for group, rate in zip(one.param_groups, own, strict=True):
                group["lr"] = rate * factor
            one.step()
        update(p_kp, g_kp, factor)
        for model, row in zip(models, p_kp, strict=True):
            alone = nn.utils.parameters_to_vector(model.parameters())
            if cls is not torch.optim.SGD or (one_group and n_features == 80):
                assert torch.equal(alone, row)
            else:  # torch's step rounds once where the stack's rounds twice
                torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-7)


def test_a_stack_carries_buffers_and_outlives_a_diverging_member() -> None:
    specs = toy_grid(widths=[8], powers=[-8, -4, 20], seeds=(0,), n_steps=30)
    work = Work(task=Toy(), make_optimizer=grouped(torch.optim.SGD))
    wild, calm, lively = train_stack(work, specs)  # as they end
    assert (calm.status, lively.status, wild.status) == ("finished", "finished", "diverged")
    assert len(wild.losses) < 30
    assert lively.losses == pytest.approx(
        train_trial(Work(task=Toy(), make_optimizer=grouped(torch.optim.SGD)), specs[1]).losses,
        rel=2e-5,
    )
    normalized = list(train_stack(Work(task=Normalizing(), make_optimizer=adam), specs[:2]))
    for spec, trial in zip(specs, normalized, strict=False):
        assert trial.losses == pytest.approx(
            train_trial(Work(task=Normalizing(), make_optimizer=adam), spec).losses, rel=1e-4
        )


@pytest.mark.parametrize(
    ("make_optimizer", "message"),
    [
        (grouped(torch.optim.RMSprop), "RMSprop has no stacked update"),
        (grouped(torch.optim.Adam, amsgrad=True), "amsgrad"),
        (lambda model, w, lr: torch.optim.SGD(list(model.parameters())[:1], lr=lr), "in no group"),
    ],
)
def test_what_cannot_be_stacked_says_why(make_optimizer: MakeOptimizer, message: str) -> None:
    with pytest.raises(NotStackableError, match=message):
        list(train_stack(Work(task=Toy(), make_optimizer=make_optimizer), toy_grid(widths=[8])))


def test_a_batch_is_split_row_by_row_whatever_its_columns_are() -> None:
    x = torch.arange(8.0)
    whole = {"x": x, "y": x.numpy(), "w": [*range(8)], "scale": torch.tensor(2.0), "name": "a"}
    parts = split_batch(whole, 4)
    assert [part["w"] for part in parts] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(part["x"].tolist() == part["y"].tolist() == part["w"] for part in parts)
    assert [(part["scale"].item(), part["name"]) for part in parts] == [(2.0, "a")] * 4
    pair = split_batch([x, x + 1], 2)  # a list of tensors is no column
    assert [len(part[1]) for part in pair] == [4, 4]
    stacked = split_batch({"x": torch.ones(3, 8), "scale": torch.ones(3)}, 2, axis=1)
    assert [tuple(part["x"].shape) for part in stacked] == [(3, 4)] * 2
    with pytest.raises(TaskError, match=r"tensors of a batch have \[8\] rows.*that 3 divides"):
        split_batch(whole, 3)
