"""Training steps of many transformers architectures, unmodified, under several budgets."""

import copy
import warnings
from typing import Any

import pytest
import torch

from tests.rematerialization.architectures import ARCHITECTURES
from thetaone.errors import BudgetTooSmallError
from thetaone.rematerialization import TrainingMemory, profile, rematerialize

transformers: Any = pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def make(name: str) -> Any:
    one = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, one.config)(**one.options)
    return getattr(transformers, one.model)(config).train()


def step(model: Any, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Two steps, and all that they leave."""
    left: list[torch.Tensor] = []
    torch.manual_seed(7)
    for _ in range(2):
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        left += [loss.detach(), *(gradient.clone() for gradient in gradients)]
    return [*left, *(buffer.clone() for buffer in model.buffers()), torch.get_rng_state()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_trains_bitwise_within_its_plan(name: str) -> None:
    plain = make(name)
    inputs: dict[str, Any] = ARCHITECTURES[name].inputs()
    chain = profile(plain, repeats=1, **inputs)
    expected = step(copy.deepcopy(plain), inputs)
    for budget in (1.0, 0.6, 0.35, "floor"):
        ours = copy.deepcopy(plain)
        try:
            wanted = 1 if budget == "floor" else budget
            rematerialize(ours, sample=inputs, chain=chain, budget=wanted)
        except BudgetTooSmallError as error:
            rematerialize(ours, sample=inputs, chain=chain, budget=error.floor_bytes)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".* were measured")  # within its plan
            found = step(ours, inputs)
        assert len(found) == len(expected)
        for number, (a, b) in enumerate(zip(expected, found, strict=True)):
            assert torch.equal(a, b), (budget, number)
    with TrainingMemory(ours) as memory:  # at the floor: no more than plain, and it was counted
        step(ours, inputs)
    assert memory.activation_peak_bytes > 0
