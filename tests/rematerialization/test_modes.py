"""Torch's modes around a forward alone: they act on its recomputation too."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode

from tests.rematerialization.models import Looping
from tests.rematerialization.test_executor import batch
from tests.rematerialization.test_purity import rematerialized
from thetaone.rematerialization import TrainingMemory


class Dispatching(TorchDispatchMode):
    """Scales what tanh returns; counts how often it is entered."""

    entries = 0

    def __init__(self, factor: float = 1.5) -> None:
        super().__init__()
        self.factor = factor

    def __enter__(self) -> Any:
        self.entries += 1
        return super().__enter__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        return out * self.factor if func is torch.ops.aten.tanh.default else out


class Overriding(TorchFunctionMode):
    """Scales what tanh returns."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        return out * 1.5 if func is torch.tanh else out


class Tanh(nn.Module):
    """One linear map and a tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(self.linear(x)).sin()


def gradients(
    model: nn.Module,
    forward: AbstractContextManager[Any],
    backward: AbstractContextManager[Any] | None = None,
) -> list[torch.Tensor]:
    """Gradients of one step, with something around its forward and its backward."""
    model.zero_grad()
    with forward:
        loss = model(batch()).square().mean()
    with backward or nullcontext():
        loss.backward()
    assert _get_current_dispatch_mode_stack() == []
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.fixture(scope="module")
def models() -> tuple[nn.Module, nn.Module]:
    """A model, and the same one rematerialized."""
    torch.manual_seed(0)
    plain = Looping(6, Tanh)
    return plain, rematerialized(copy.deepcopy(plain))


Models = tuple[nn.Module, nn.Module]


def test_a_dispatch_mode_of_the_forward_acts_on_the_recomputation(models: Models) -> None:
    plain, ours = models
    mode = Dispatching()
    expected = gradients(plain, Dispatching())
    assert not all(map(torch.equal, expected, gradients(plain, nullcontext())))
    assert all(map(torch.equal, expected, gradients(ours, mode)))
    assert mode.entries == 1


def test_a_function_mode_of_the_forward_acts_on_the_recomputation(models: Models) -> None:
    plain, ours = models
    expected = gradients(plain, Overriding())
    assert all(map(torch.equal, expected, gradients(ours, Overriding())))


def test_a_dispatch_mode_of_the_backward_does_not_reach_the_recomputation(models: Models) -> None:
    plain, ours = models
    expected = gradients(plain, Dispatching(), Dispatching(3.0))
    assert all(map(torch.equal, expected, gradients(ours, Dispatching(), Dispatching(3.0))))


def test_what_counts_operations_counts_where_its_user_put_it(models: Models) -> None:
    plain, ours = models
    counts = [FlopCounterMode(display=False) for _ in range(3)]
    expected = gradients(plain, counts[0])
    assert all(map(torch.equal, expected, gradients(ours, counts[1])))
    assert counts[0].get_total_flops() == counts[1].get_total_flops()
    gradients(ours, Dispatching(), counts[2])
    backward = 2 * counts[0].get_total_flops()
    assert counts[2].get_total_flops() > backward  # it sees the recomputation


def test_measuring_sees_a_recomputation_under_a_mode(models: Models) -> None:
    _, ours = models
    peaks: list[int] = []
    for mode in (nullcontext(), Dispatching(1.0)):
        gradients(ours, nullcontext())
        with TrainingMemory(ours) as memory:
            with mode:
                loss = ours(batch()).square().mean()
            loss.backward()
        peaks.append(memory.activation_peak_bytes)
    assert peaks[1] >= peaks[0] > 0


@pytest.mark.float32
def test_hooks_that_change_the_tape_are_named(models: Models) -> None:
    _, ours = models
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor.bfloat16(), lambda tensor: tensor.float()
    )
    with pytest.warns(RuntimeWarning, match="saved-tensor hooks .* not on its tape"):
        gradients(ours, hooks)


def test_hooks_of_torch_that_keep_values_are_let_through(models: Models) -> None:
    plain, ours = models
    expected = gradients(plain, nullcontext())
    offloaded = torch.autograd.graph.save_on_cpu()
    assert all(map(torch.equal, expected, gradients(ours, offloaded)))


class Denormal(Tanh):
    """Scales its branch by one, computed by way of a number that is flushed to zero if asked."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tiny = torch.full((), 1e-310, dtype=torch.float64) * 1.0
        return x + torch.tanh(self.linear(x)) * (tiny * 1e300 * 1e10).float()


def set_precision(value: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = value  # pyright: ignore


SETTINGS: dict[str, tuple[type[nn.Module], Any, Any]] = {
    "denormals": (Denormal, lambda: torch.set_flush_denormal(True), None),
    "precision": (Tanh, lambda: set_precision("bf16"), lambda: set_precision("none")),
    "all precisions": (
        Tanh,
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends, "fp32_precision", "none"),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_the_forward_is_that_of_the_recomputation(name: str) -> None:
    block, put, back = SETTINGS[name]
    back = back or (lambda: torch.set_flush_denormal(False))
    torch.manual_seed(0)
    plain = Looping(6, block)
    ours = rematerialized(copy.deepcopy(plain))
    for model in (plain, ours):
        try:
            put()
            loss = model(batch()).square().mean()
        finally:
            back()
        loss.backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # pyright: ignore
    assert torch.get_float32_matmul_precision() == "highest"


def test_where_saved_tensor_hooks_are_disabled_blocks_run_as_written() -> None:
    torch.manual_seed(0)
    plain = Looping(6, Tanh)
    ours = rematerialized(copy.deepcopy(plain))
    plain(batch()).square().mean().backward()
    disabled = torch.autograd.graph.disable_saved_tensors_hooks("none here")
    with disabled, pytest.warns(RuntimeWarning, match="nothing is recomputed"):
        loss = ours(batch()).square().mean()
    loss.backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # pyright: ignore
