"""Measuring leaves a model as it was, fires no hook, refuses what it cannot measure right."""

import torch
import torch.utils.checkpoint
from torch import nn

from tests.rematerialization.loops import peak
from tests.rematerialization.models import Residual, looping, planned
from tests.rematerialization.test_executor import backward, batch
from thetaone.rematerialization import profile, rematerialize
from thetaone.rematerialization.accounting import StorageTracker
from thetaone.rematerialization.planning._policies import per_block


def test_planning_anew_fires_no_hook() -> None:
    model, seen = looping(6), list[int]()
    for block in model.blocks:
        block.register_forward_hook(lambda *_: seen.append(1))
        block.register_full_backward_hook(lambda *_: seen.append(2))
    rematerialize(model, sample=batch(), budget=0.8)
    assert seen == []  # what hooks wrote while the model was measured is undone
    model(batch(7, 16))
    assert seen == [1] * 6


class Aside(Residual):
    """Reaches a weight by another name as well."""

    def __init__(self) -> None:
        super().__init__(16)
        self.others = [nn.Parameter(torch.ones(2**16))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.others[0].mean()


def test_a_weight_by_another_name_is_measured_and_left_alone() -> None:
    model, x = nn.Sequential(*[Aside() for _ in range(4)]), batch(64, 16)
    chain = profile(model, x, repeats=1)
    others = [block.others[0] for block in model if isinstance(block, Aside)]
    assert all(one.grad is None for one in others)
    assert chain.stages[0].backward_scratch_bytes >= 2**18


def test_measuring_fires_no_hook_and_leaves_weights_alone() -> None:
    model, fired = looping(6), list[str]()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: fired.append(name))
        parameter.register_hook(lambda _, name=name: fired.append(name))
    rematerialize(model, sample=batch(), budget=0.8)
    assert fired == []
    assert all(p.grad is None for p in model.parameters())
    backward(model, batch(7, 16))  # planned anew within the step
    assert len(fired) == 2 * len(list(model.parameters()))


def test_measuring_leaves_nothing_in_memory() -> None:
    """What is saved for the backward of ``tanh`` is its own output, which hooks may hold."""
    model, x = (
        nn.Sequential(*[nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(4)]),
        batch(64, 16),
    )
    with StorageTracker() as tracker:
        profile(model, x, repeats=2)
    assert tracker.live_bytes == 0


class Heads(nn.Module):
    """Attention whose number of heads no parameter and no ``repr`` shows."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.qkv, self.heads = nn.Linear(64, 192), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = parts
        return ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_blocks_that_print_alike_may_cost_otherwise() -> None:
    model = nn.Sequential(*[Heads(heads) for heads in (2, 32, 2, 32)])
    x = torch.randn(2, 64, 64)
    chain = profile(model, x, repeats=1)
    assert chain.stages[1].tape_bytes > 2 * chain.stages[0].tape_bytes
    rematerialize(model, schedule := per_block(chain))
    assert peak(model, lambda m: m(x).sum().backward()) <= schedule.peak_bytes


def test_a_rematerialized_model_can_be_profiled() -> None:
    model, x = looping(6), batch()
    before = profile(model, x, repeats=1)
    rematerialize(model, planned(model, x)[1])
    after = profile(model, x, repeats=1)
    assert [one.tape_bytes for one in after.stages] == [one.tape_bytes for one in before.stages]
    assert after.context == before.context
