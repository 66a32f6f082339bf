"""Chains as models have them: several tensors a link, several lists, blocks used many times."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from tests.rematerialization.loops import peak
from tests.rematerialization.models import Residual, nested
from thetaone.errors import ProfileError, ScheduleError
from thetaone.rematerialization import profile, rematerialize
from thetaone.rematerialization.planning import plan
from thetaone.rematerialization.planning._policies import judged


class Model(nn.Module):
    """A forward that is given from outside."""

    def __init__(self, run: Callable[[Any, torch.Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


class Biased(Residual):
    """The first one makes a bias that the others add and hand on, as in T5."""

    def __init__(self, first: bool = False) -> None:
        super().__init__(16)
        self.table = nn.Parameter(torch.randn(64, 16)) if first else None

    def forward(self, x: torch.Tensor, bias: Any = None) -> Any:  # pyright: ignore
        if bias is None:
            assert self.table is not None
            bias = self.table.mean(0, keepdim=True).repeat(len(x), 1) * 0.5
        return super().forward(x + bias), bias


class Routed(Residual):
    """Returns a loss of its own beside its output, as a mixture of experts does."""

    def forward(self, x: torch.Tensor, loss: Any) -> Any:  # pyright: ignore
        y = super().forward(x)
        return y, loss + y.square().mean()


class Pair(NamedTuple):
    hidden: torch.Tensor
    loss: torch.Tensor


class Both:
    def __init__(self, hidden: Any, loss: Any) -> None:
        self.hidden, self.loss = hidden, loss


class Paired(Residual):
    """Takes its output and a loss as one thing, and returns them so."""

    def forward(self, pair: Any) -> Any:  # pyright: ignore
        y = super().forward(pair.hidden)
        return type(pair)(y, pair.loss + y.square().mean())


class Handed(Paired):
    """Takes them with another argument, which changes places."""

    def forward(self, pair: Any, last: Any = None) -> Any:  # pyright: ignore
        y, loss = super().forward(pair)
        return type(pair)(y, loss), y * 0.5


class Stateful(nn.Module):
    """A cell with two states, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(16, 16)

    def forward(self, streams: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        h, c = self.cell(streams["x"], (streams["h"], streams["c"]))
        return {"x": streams["x"] + h, "h": h, "c": c}


class Masked(Residual):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        return super().forward(x) * mask


class Crossed(Residual):
    def forward(self, x: torch.Tensor, memory: Any = None) -> torch.Tensor:  # pyright: ignore
        return super().forward(x if memory is None else x + memory)


def blocks(count: int, make: Callable[[], nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(make() for _ in range(count))


def with_bias(model: Any, x: torch.Tensor) -> Any:
    bias = None
    for block in model.blocks:
        x, bias = block(x, bias)
    return x


def with_loss(model: Any, x: torch.Tensor) -> Any:
    loss = torch.zeros(())
    for block in model.blocks:
        x, loss = block(x, loss)
    return x + loss


def with_states(model: Any, x: torch.Tensor) -> Any:
    streams = {"x": x, "h": torch.zeros_like(x), "c": torch.zeros_like(x)}
    for block in model.blocks:
        streams = block(streams)
    return streams["x"] + streams["c"]


def with_two_masks(model: Any, x: torch.Tensor) -> Any:
    masks = x.detach().sign(), x.detach().abs()
    for number, block in enumerate(model.blocks):
        x = block(x, masks[number % 2])
    return x


def deeply_supervised(model: Any, x: torch.Tensor) -> Any:
    outputs: list[torch.Tensor] = []
    for block in model.blocks:
        x = block(x)
        outputs.append(x)
    return torch.stack(outputs)


def dropping_layers(model: Any, x: torch.Tensor) -> Any:
    for block in model.blocks:
        if torch.rand(()) > 0.3:
            x = block(x)
    return x


def encoded_and_decoded(model: Any, x: torch.Tensor) -> Any:
    memory = x
    for block in model.encoder:
        memory = block(memory)
    for block in model.decoder:
        x = block(x, memory)
    return x


def down_and_up(model: Any, x: torch.Tensor) -> Any:
    skips: list[torch.Tensor] = []
    for block in model.down:
        x = block(x)
        skips.append(x)
    x = model.middle(x)
    for block in model.up:
        x = block(x, skips.pop())
    return x


def in_stages(model: Any, x: torch.Tensor) -> Any:
    return model.layer3(model.layer2(model.layer1(x)))


def by_name(model: Any, x: torch.Tensor) -> Any:
    for name in ("a", "b", "c", "d"):
        x = model.blocks[name](x)
    return x


def many_times(model: Any, x: torch.Tensor) -> Any:
    for _ in range(6):
        for block in model.blocks:
            x = block(x)
    return x


def stage() -> nn.Sequential:
    return nn.Sequential(Residual(16), Residual(16))


MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "position bias": (
        lambda: Model(with_bias, blocks=nn.ModuleList(Biased(i == 0) for i in range(6))), None
    ),
    "router loss": (lambda: Model(with_loss, blocks=blocks(6, lambda: Routed(16))), None),
    "states in a dictionary": (lambda: Model(with_states, blocks=blocks(6, Stateful)), None),
    "two masks": (lambda: Model(with_two_masks, blocks=blocks(6, lambda: Masked(16))), None),
    "deep supervision": (
        lambda: Model(deeply_supervised, blocks=blocks(6, lambda: Residual(16, 0.1))), None
    ),
    "layers dropped": (
        lambda: Model(dropping_layers, blocks=blocks(6, lambda: Residual(16, 0.1))), None
    ),
    "encoder and decoder": (
        lambda: Model(encoded_and_decoded, encoder=blocks(4, lambda: Crossed(16)),
                      decoder=blocks(4, lambda: Crossed(16))), None
    ),
    "two lists by name": (
        lambda: Model(encoded_and_decoded, encoder=blocks(4, lambda: Crossed(16)),
                      decoder=blocks(4, lambda: Crossed(16))), ("encoder", "decoder")
    ),
    "U-Net": (
        lambda: Model(down_and_up, down=blocks(3, lambda: Crossed(16)), middle=Residual(16),
                      up=blocks(3, lambda: Crossed(16))), ("down", "middle", "up")
    ),
    "stages of a ResNet": (
        lambda: Model(in_stages, layer1=stage(), layer2=stage(), layer3=stage()), None
    ),
    "blocks as attributes": (
        lambda: Model(in_stages, layer1=Residual(16), layer2=Residual(16), layer3=Residual(16)),
        None,
    ),
    "dictionary of blocks": (
        lambda: Model(by_name, blocks=nn.ModuleDict({name: Residual(16) for name in "abcd"})), None
    ),
    "one block, six times": (
        lambda: Model(many_times, blocks=blocks(1, lambda: Residual(16, 0.1))), None
    ),
    "two blocks, six times": (
        lambda: Model(many_times, blocks=blocks(2, lambda: Residual(16, 0.1))), None
    ),
}  # fmt: skip


def paired(model: Any, x: torch.Tensor, kind: Any = Pair) -> torch.Tensor:
    pair = kind(x, x.new_zeros(()))
    for block in model.blocks:
        pair = block(pair)
    return pair.hidden * (1 + pair.loss)


def handed(model: Any, x: torch.Tensor) -> torch.Tensor:
    pair: Any = Pair(x, x.new_zeros(()))
    last: Any = None
    for block in model.blocks:
        pair, last = block(pair, last)
    return pair.hidden * (1 + pair.loss) + last


NAMED: dict[str, Callable[[], nn.Module]] = {
    "alone": lambda: Model(paired, blocks=blocks(6, lambda: Paired(16))),
    "with another": lambda: Model(handed, blocks=blocks(6, lambda: Handed(16))),
}


def batch(rows: int = 64) -> torch.Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(5)
    output = model(x)
    output.square().mean().backward()
    gradients = [p.grad for p in model.parameters()]
    return [output.detach(), *(g.clone() for g in gradients if g is not None)]


@pytest.mark.filterwarnings("ignore:.*one by one:RuntimeWarning")
@pytest.mark.parametrize("fraction", [0.9, 0.55, "floor"])
@pytest.mark.parametrize("name", MODELS)
def test_a_chain_of_any_shape_trains_bitwise_within_its_budget(name: str, fraction: Any) -> None:
    make, names = MODELS[name]
    torch.manual_seed(0)
    plain, x = make(), batch()
    torch.manual_seed(5)
    chain = profile(plain, x, blocks=names, repeats=1)
    if fraction == "floor":
        with pytest.raises(ValueError, match="no schedule fits") as caught:
            plan(chain, 1)
        fraction = int(getattr(caught.value, "floor_bytes"))  # noqa: B009
    schedule = plan(chain, fraction)
    ours = rematerialize(copy.deepcopy(plain), schedule, blocks=names)
    assert schedule.regions
    for _ in range(2):
        assert all(map(torch.equal, step(plain, x), step(ours, x)))
    beside = 4 * x.nbytes if name != "deep supervision" else 20 * x.nbytes  # the loss
    assert peak(ours, lambda model: step(model, x)) <= schedule.peak_bytes + beside


@pytest.mark.parametrize("name", ["position bias", "router loss", "states in a dictionary", *NAMED])
def test_regions_span_links_of_several_tensors(name: str) -> None:
    make = NAMED[name] if name in NAMED else MODELS[name][0]
    torch.manual_seed(0)
    plain, x = make(), batch()
    chain = profile(plain, x, repeats=1)
    assert not chain.separate
    assert not chain.lists
    ours = rematerialize(copy.deepcopy(plain), judged(chain, nested(6), policy="nested"))
    for _ in range(2):
        assert all(map(torch.equal, step(plain, x), step(ours, x)))


def test_what_no_tensor_is_seen_in_is_named() -> None:
    model = Model(partial(paired, kind=Both), blocks=blocks(6, lambda: Paired(16)))
    with pytest.raises(ProfileError, match=r"called with Both, without a tensor .* named tuples"):
        profile(model, batch(), repeats=1)


@pytest.mark.filterwarnings("ignore:.*one by one:RuntimeWarning")
@pytest.mark.parametrize("name", ["encoder and decoder", "U-Net", "deep supervision"])
def test_a_larger_batch_is_planned_anew_where_blocks_run_one_by_one(name: str) -> None:
    make, names = MODELS[name]
    torch.manual_seed(0)
    plain, x, more = make(), batch(), batch(80)
    chain = profile(plain, x, blocks=names, repeats=1)
    budget = plan(chain, 0.8).budget_bytes
    assert budget is not None
    ours = rematerialize(copy.deepcopy(plain), sample=x, budget=budget, blocks=names)
    for inputs in (x, more, x, more):
        assert all(map(torch.equal, step(plain, inputs), step(ours, inputs)))
    beside = 4 * more.nbytes if name != "deep supervision" else 20 * more.nbytes
    assert peak(ours, lambda model: step(model, more)) <= budget + beside
    alone = rematerialize(copy.deepcopy(plain), plan(chain, 0.8), blocks=names)
    with pytest.raises(ScheduleError, match="Profile and plan for this one"):
        step(alone, more)


@pytest.mark.parametrize("name", ["position bias", "router loss", "states in a dictionary", *NAMED])
def test_a_larger_batch_is_planned_anew_where_links_hold_several_tensors(name: str) -> None:
    torch.manual_seed(0)
    plain, x, more = (NAMED[name] if name in NAMED else MODELS[name][0])(), batch(), batch(80)
    budget = plan(profile(plain, x, repeats=1), 1.0).budget_bytes  # all is kept at this size
    assert budget is not None
    ours = rematerialize(copy.deepcopy(plain), sample=x, budget=budget)
    for inputs in (x, more, x, more):
        assert all(map(torch.equal, step(plain, inputs), step(ours, inputs)))


def test_blocks_that_are_called_past_the_module_are_named() -> None:
    def past(model: Any, x: torch.Tensor) -> Any:
        for block in model.blocks:
            x = block.forward(x)
        return x

    with pytest.raises(ProfileError, match=r"never calls blocks.0.*block.forward\(x\)"):
        profile(Model(past, blocks=blocks(3, lambda: Residual(16))), batch())


def test_blocks_that_run_one_time_in_five_are_all_measured() -> None:
    def dropping(model: Any, x: torch.Tensor) -> Any:
        for block in model.blocks:
            if torch.rand(()) < 0.2:
                x = block(x)
        return x

    model = Model(dropping, blocks=blocks(12, lambda: Residual(16)))
    with pytest.warns(RuntimeWarning, match="leaves blocks out at random"):
        chain = profile(model, batch())
    assert [stage.name for stage in chain.stages] == [f"blocks.{place}" for place in range(12)]


def test_a_number_that_changes_no_bytes_is_planned_anew_once() -> None:
    def counted(model: Any, x: torch.Tensor) -> Any:
        model.number += 1
        for block in model.blocks:
            x = block(x, model.number)
        return x

    class Numbered(Residual):
        def forward(self, x: torch.Tensor, number: int) -> torch.Tensor:  # pyright: ignore
            return super().forward(x) * number

    torch.manual_seed(0)
    plain: Any = Model(counted, blocks=blocks(6, lambda: Numbered(16)))
    plain.number = 0
    ours: Any = copy.deepcopy(plain)
    rematerialize(ours, sample=batch(), budget=0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            assert all(map(torch.equal, step(plain, batch()), step(ours, batch())))
    runner = vars(ours.blocks[0])["_rematerialization"].runner
    assert runner.ignored == {"extra values"}
    assert not runner.others


def test_blocks_that_run_without_gradients_end_a_region() -> None:
    def run(model: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            for block in model.blocks[:3]:
                x = block(x)
        for block in model.blocks[3:]:
            x = block(x)
        return x

    torch.manual_seed(0)
    plain = Model(run, blocks=nn.ModuleList(Residual(16) for _ in range(8)))
    ours, x = copy.deepcopy(plain), torch.randn(64, 16)
    with pytest.warns(RuntimeWarning, match=r"gradients on or off between blocks\.2 and blocks\.3"):
        rematerialize(ours, sample=x, budget=0.5)
    for model in (plain, ours):
        model(x).square().mean().backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)  # pyright: ignore
