"""The mixture of optimizers is a torch optimizer: saved, resumed, scaled, scheduled, pickled."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_tasks import mlp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import thetaone as t1
from thetaone.errors import InputError, MismatchError
from thetaone.parametrization import FlattenedRatiosWarning, set_lr

Pair = tuple[nn.Module, torch.optim.Optimizer]


def pair(seed: int = 0, optimizer: Any = "Muon+AdamW") -> Pair:
    torch.manual_seed(seed)
    model = mlp(64)
    return model, t1.parametrize(model, base=mlp(32), optimizer=optimizer, lr=2**-6)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    inputs = torch.randn(8, 32, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().mean().backward()
    optimizer.step()


def flattened(trained: Pair, fresh: Pair) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    state = copy.deepcopy(get_optimizer_state_dict(*trained, options=options))
    set_optimizer_state_dict(*fresh, state, options=options)


def nested(trained: Pair, fresh: Pair) -> None:
    set_optimizer_state_dict(*fresh, copy.deepcopy(get_optimizer_state_dict(*trained)))


def plain(trained: Pair, fresh: Pair) -> None:
    buffer = io.BytesIO()
    torch.save(trained[1].state_dict(), buffer)
    buffer.seek(0)
    fresh[1].load_state_dict(torch.load(buffer))  # weights_only: plain containers alone


@pytest.mark.parametrize("carry", [plain, nested, flattened])
def test_a_saved_state_resumes_bit_for_bit(carry: Callable[[Pair, Pair], None]) -> None:
    trained, fresh = pair(), pair(1)
    step(*trained, 1)
    step(*trained, 2)
    fresh[0].load_state_dict(trained[0].state_dict())
    carry(trained, fresh)
    for one in (trained, fresh):
        step(*one, 3)
    same = zip(trained[0].parameters(), fresh[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_trains_on_alone(copied: Callable[[Pair], Pair]) -> None:
    trained = pair()
    step(*trained, 1)
    twin = copied(trained)
    before = [p.detach().clone() for p in trained[0].parameters()]
    step(*twin, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, trained[0].parameters(), strict=True))
    step(*trained, 2)
    same = zip(trained[0].parameters(), twin[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert not any(torch.equal(a, b) for a, b in zip(before, twin[0].parameters(), strict=True))


def test_a_scaler_skips_a_step_that_is_not_finite() -> None:
    model, optimizer = pair()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    twin, other = pair()
    step(twin, other, 1)
    for bad in (True, False):
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.zero_grad()
        inputs = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
        loss = model(inputs).square().mean()
        scaler.scale(loss * float("inf") if bad else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        unmoved = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert all(unmoved) if bad else not any(unmoved)
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def test_a_scheduler_and_set_lr_act_on_every_group() -> None:
    mixture = {"hidden": (torch.optim.Muon, {"lr": 0.02}), "rest": torch.optim.AdamW}
    model, optimizer = pair(optimizer=mixture)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert 0.02 in rates
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    step(model, optimizer, 1)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [rate / 2 for rate in rates]
    set_lr(optimizer, 2**-6)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates)


def test_the_loop_written_by_hand_is_answered_with_the_cure() -> None:
    for cured in (False, True):
        model, optimizer = pair(optimizer=torch.optim.AdamW)
        for group in optimizer.param_groups:
            group["lr"] = 2**-7 * (group["lr_factor"] if cured else 1)
        if cured:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                step(model, optimizer, 1)
        else:
            cure = r'group\["lr"\] = lr \* group\["lr_factor"\]'
            with pytest.warns(FlattenedRatiosWarning, match=cure):
                step(model, optimizer, 1)


def test_a_rate_that_is_a_tensor_is_written_in_place() -> None:
    model = mlp(64)
    optimizer = t1.parametrize(model, base=mlp(32), lr=torch.tensor(0.25))
    held = [group["lr"] for group in optimizer.param_groups]
    set_lr(optimizer, 0.5)
    assert all(group["lr"] is one for group, one in zip(optimizer.param_groups, held, strict=True))
    assert {float(rate) for rate in held} == {0.25, 0.5}


def test_a_new_group_goes_to_the_member_that_it_names() -> None:
    model, optimizer = pair()
    extra, matrix = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4, 4))
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    optimizer.add_param_group({"params": [matrix], "optimizer": "Muon", "lr": 0.25})
    assert [g["optimizer"] for g in optimizer.param_groups[-2:]] == ["AdamW", "Muon"]
    extra.grad, matrix.grad = torch.ones(3), torch.eye(4)
    step_size = [p.detach().clone() for p in (extra, matrix)]
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(step_size, (extra, matrix), strict=True))
    assert "momentum_buffer" in optimizer.state[matrix]
    fresh = pair()[1]
    with pytest.raises(MismatchError, match=r"groups are of .* load it into an optimizer built by"):
        fresh.load_state_dict(optimizer.state_dict())
    with pytest.raises(InputError, match=r"optimizer='SGD': choose one of Muon, AdamW"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "optimizer": "SGD"})
    with pytest.raises(InputError, match="already stepped: pass it once"):
        optimizer.add_param_group({"params": [next(model.parameters())]})
