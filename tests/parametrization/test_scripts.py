"""Scripted and traced parts of a model are read as the code that they were made from."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError, PrescriptionError
from thetaone.records import Rule

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
X = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))


class Mix(nn.Module):
    """Attention with one projection for all three, so that queries are rows of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, [3, 2, -1]).unbind(1)
        return x + F.scaled_dot_product_attention(q[None], k[None], v[None])[0].flatten(1)


def dense(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())


Wrap = Callable[[Any, int], Any]
WRAPS: dict[str, Wrap] = {
    "scripted": lambda module, width: torch.jit.script(module),
    "traced": lambda module, width: torch.jit.trace(module, torch.ones(4, width)),
}


def model(width: int, part: Callable[[int], Any], wrap: Wrap = lambda one, _: one) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, width), wrap(part(width), width), nn.Linear(width, 8))


def rules(part: Callable[[int], Any], wrap: Wrap = lambda one, _: one) -> tuple[Rule, ...]:
    base = model(32, part, wrap)
    return t1.prescribe(model(64, part, wrap), base=base, sample=(X,)).rules


@pytest.mark.parametrize("part", [dense, Mix])
@pytest.mark.parametrize("name", WRAPS)
def test_a_script_has_the_rules_of_its_code(name: str, part: Callable[[int], Any]) -> None:
    assert rules(part, WRAPS[name]) == rules(part)


@pytest.mark.parametrize("name", WRAPS)
def test_reading_a_script_changes_nothing(name: str) -> None:
    target, base = (model(width, dense, WRAPS[name]) for width in (64, 32))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    t1.prescribe(target, base=base, sample=(X,))
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
    assert all(module.training for module in target.modules())


def test_reading_writes_into_no_buffer() -> None:
    class Counting(nn.Linear):
        count: Tensor

        def __init__(self, width: int) -> None:
            super().__init__(16, width)
            self.register_buffer("count", torch.zeros((), dtype=torch.long))

        def forward(self, input: Tensor) -> Tensor:
            self.count += 1
            return super().forward(input)

    target, base = Counting(64), Counting(32)
    t1.prescribe(target, base=base, sample=(X,))
    assert target.count == 0


@pytest.mark.parametrize("name", WRAPS)
def test_rows_of_a_script_are_refused_and_the_model_is_untouched(name: str) -> None:
    target, base = (model(width, Mix, WRAPS[name]) for width in (64, 32))
    before = [parameter.clone() for parameter in target.parameters()]
    with pytest.raises(PrescriptionError, match="already scripted or traced: parametrize the mod"):
        t1.parametrize(target, base=base, lr=0.01, sample=(X,))
    assert all(map(torch.equal, target.parameters(), before))


def test_what_the_message_advises_works() -> None:
    target = model(64, Mix)
    t1.parametrize(target, base=model(32, Mix), lr=0.01, sample=(X,))
    scripted = torch.jit.script(t1.export(target))
    torch.testing.assert_close(scripted(X), target(X))


def test_the_check_refuses_scripts_by_name() -> None:
    class Task:
        def model(self, width: int) -> nn.Module:
            return model(width, dense, WRAPS["scripted"])

        def batches(self, seed: int) -> Iterator[Tensor]:
            yield X

        def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
            return model(batch).square().mean()

    with pytest.raises(InputError, match=r"1 is made by torch\.jit\.script.*before it is"):
        t1.coordinate_check(Task(), widths=[16, 32, 64], lr=0.01)
