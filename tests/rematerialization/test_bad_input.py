"""Values at the doors of planning and profiling that none of them can use."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from thetaone import rematerialization
from thetaone.errors import InputError, ProfileError
from thetaone.records import Chain, Stage

# a user's types are not checked either
plan: Any = rematerialization.plan
profile: Any = rematerialization.profile
rematerialize: Any = rematerialization.rematerialize


def chain(**bytes_of: int) -> Chain:
    costs: dict[str, Any] = {"output_bytes": 1, "tape_bytes": 16, **bytes_of}
    stage = Stage(name="b", forward_seconds=1.0, backward_seconds=2.0, **costs)
    return Chain(input_bytes=1, stages=(stage,) * 6)


def layers() -> Any:
    return nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])


X = torch.zeros(4, 8)


def with_sample(sample: Any) -> Callable[[], object]:
    return lambda: rematerialize(layers(), sample=sample, budget=0.5)


DOORS: dict[str, tuple[Callable[[], object], str]] = {
    **{
        f"units {units!r}": (
            lambda units=units: plan(chain(), 100, memory_units=units),
            "memory_units=.*: need a whole number from 8 to 1,000,000",
        )
        for units in ("500", None, float("nan"), float("inf"), 8.5, True, 7, 10**12, [500])
    },
    "budget of nothing": (lambda: plan(chain(), Fraction(0)), "budget=Fraction"),
    "budget without end": (lambda: plan(chain(), Fraction(10**400, 3)), "budget=Fraction"),
    **{
        f"{field} of 2^80": (lambda field=field: chain(**{field: 2**80}), "1 EiB")
        for field in (
            "output_bytes", "tape_bytes", "forward_scratch_bytes", "backward_scratch_bytes",
            "taping_scratch_bytes",
        )
    },
    "bytes that overflow together": (lambda: chain(tape_bytes=2**59), "together: need 1 EiB"),
    "sample []": (with_sample([]), "cannot be called with this sample: missing .* 'input'"),
    "sample {}": (with_sample({}), "cannot be called with this sample: missing .* 'input'"),
    "sample of two": (with_sample((X, X)), "cannot be called with this sample: too many"),
    "sample by a wrong name": (with_sample({"x": X}), "cannot be called with this sample"),
    "profile of nothing": (lambda: profile(layers()), "cannot be called with this sample"),
    "blocks 5": (lambda: profile(layers(), X, blocks=5), "blocks=.*5.*need a name"),
    **{
        f"repeats {repeats!r}": (
            lambda repeats=repeats: profile(layers(), X, repeats=repeats),
            "repeats=.*: need a whole number from 1",
        )
        for repeats in (0, -1, float("nan"), 2.5, "5", None, True)
    },
    "no model": (
        lambda: rematerialize("m", sample=X, budget=0.5),
        "model is a str: need an nn.Module",
    ),
    "no model to profile": (lambda: profile("m", X), "model is a str"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_bad_input_is_refused_by_name(name: str) -> None:
    call, message = DOORS[name]
    with pytest.raises(InputError, match=message):
        call()


def test_a_budget_of_bytes_or_a_share_may_be_any_number() -> None:
    assert plan(chain(), Fraction(60)).budget_bytes == 60
    half = plan(chain(), Fraction(1, 2))
    assert half.budget_bytes == plan(chain(), 0.5).budget_bytes


def test_hooks_that_complete_the_arguments_are_let_through() -> None:
    model = layers()
    model.register_forward_pre_hook(lambda _, args: args or (X,))
    assert profile(model, repeats=1).length == 6


def test_what_has_no_contents_is_not_measured() -> None:
    meta = torch.empty(4, 8, device="meta")
    for model, sample in ((layers().to("meta"), meta), (layers(), meta)):
        with pytest.raises(InputError, match="a meta tensor has no contents"):
            profile(model, sample)
    with FakeTensorMode(), pytest.raises(InputError, match="a fake tensor has no contents"):
        rematerialize(layers(), sample=torch.zeros(4, 8), budget=0.9)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(X)
    with pytest.raises(InputError, match="a fake tensor has no contents"):
        profile(layers(), fake)


def test_a_rematerialized_model_runs_without_contents() -> None:
    model = rematerialize(layers(), sample=X, budget=0.9)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with pytest.warns(RuntimeWarning, match=r"fake tensors .* run as written"):
            y = model(mode.from_tensor(X))
        y.sum().backward()
    assert y.shape == X.shape
    model = model.to("meta")
    y = model(torch.empty(5, 8, device="meta"))
    y.sum().backward()
    assert y.shape == (5, 8)
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())


class Jagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nested.as_nested_tensor([x[:1], x[1:]], layout=torch.jagged)
        for block in self.blocks:
            x = block(x)
        return x.values()


def test_nested_tensors_between_blocks_are_refused() -> None:
    with pytest.raises(ProfileError, match="a nested tensor flows into the blocks"):
        profile(Jagged(), torch.ones(4, 8))


def test_a_tensor_of_inference_mode_is_refused() -> None:
    class Cloning(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(x.clone()).tanh()

    model, x = nn.Sequential(*[Cloning(8, 8) for _ in range(8)]), torch.ones(64, 8)
    with torch.inference_mode():
        frozen = x * 1
    with pytest.raises(ProfileError, match="made in inference mode"):
        profile(model, frozen)
    model = rematerialize(model, sample=x, budget=0.6)
    with pytest.raises(ProfileError, match="made in inference mode"):
        model(frozen)
    with torch.inference_mode():
        assert model(frozen).shape == x.shape


def test_a_buffer_that_a_forward_resizes_is_refused_and_put_back() -> None:
    class Growing(nn.Linear):
        seen: torch.Tensor

        def __init__(self) -> None:
            super().__init__(8, 8)
            self.register_buffer("seen", torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            self.seen.resize_(len(self.seen) + 1)[-1] = 2.0
            return super().forward(x) * self.seen.mean()

    model = nn.Sequential(*[Growing() for _ in range(6)])
    with pytest.raises(ProfileError, match=r"resizes the buffer Growing\.seen in place"):
        profile(model, torch.ones(4, 8))
    assert all(torch.equal(block.seen, torch.ones(1)) for block in model)  # pyright: ignore
