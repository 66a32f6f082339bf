"""The live monitor: exact on a known step, names dead and exploding layers, leaves no trace."""

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from small_tasks import mlp
from torch import Tensor, nn

from thetaone.errors import InputError
from thetaone.laws import rms_operator_norm
from thetaone.parametrization import SpectralMonitor
from thetaone.parametrization.checking import _monitor
from thetaone.records import SpectralReading


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 32, generator=generator)).square().mean().backward()
        optimizer.step()


def test_readings_are_exact_and_training_is_unchanged() -> None:
    plain = mlp(64)
    watched = copy.deepcopy(plain)
    first = plain.get_parameter("2.weight").detach().clone()
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.1)
    with SpectralMonitor(watched, optimizer, every=3) as monitor:
        train(watched, optimizer, 7)
    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    train(plain, other, 1)
    update = plain.get_parameter("2.weight").detach() - first
    reading = next(r for r in monitor.readings if r.layer == "2")
    assert reading.weight_norm == pytest.approx(torch.linalg.matrix_norm(first, 2).item(), rel=0.01)
    assert reading.update_norm == pytest.approx(
        torch.linalg.matrix_norm(update, 2).item(), rel=0.01
    )
    assert 0 < reading.alignment <= 1
    train(plain, other, 0)
    assert sorted({r.step for r in monitor.readings}) == [0, 3, 6]
    assert not any(m._forward_pre_hooks for m in watched.modules())


def test_dead_and_exploding_layers_are_named() -> None:
    model = mlp(64)
    nn.init.zeros_(model.get_parameter("4.weight"))  # lets no gradient through to 0 and 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 1)
        assert not monitor.failures  # behind a matrix of zeros the first step has no gradient
        train(model, optimizer, 1)
    assert {(r.layer, r.status) for r in monitor.failures} == {
        ("0", "dead"),
        ("2", "dead"),
        ("4", "dead"),
    }
    model = mlp(64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3)
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 3)
    assert any(r.status == "exploding" for r in monitor.failures)


class DecayAtAnyRate(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad, alpha=-group["lr"]).mul_(0.999)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    ("kind", "dead"),
    [
        ("in no group", {"2"}),
        ("in no group, decayed by hand", {"2"}),
        ("in a group of rate 0", {"2"}),
        ("in a group of rate 0 that decays", {"2"}),
        ("in another optimizer", set[str]()),
        ("frozen on the way", set[str]()),
        ("after one step of rate 0", set[str]()),
    ],
)
def test_a_layer_that_is_not_stepped_is_dead(kind: str, dead: set[str], every: int) -> None:
    torch.manual_seed(0)
    model = mlp(64)
    middle = list(model.get_submodule("2").parameters())
    rest = [p for p in model.parameters() if all(p is not m for m in middle)]
    decays = kind.endswith("decays")
    optimizer = (DecayAtAnyRate if decays else torch.optim.SGD)([{"params": rest}], lr=0.01)
    other = torch.optim.SGD(middle, lr=0.01 if "another" in kind else 0.0)
    if "no group" not in kind and "another" not in kind:
        rate = 0.01 if "frozen" in kind else 0.0
        optimizer.add_param_group({"params": middle, "lr": rate})
    with SpectralMonitor(model, optimizer, every=every) as monitor:
        for step in range(4 * every):
            if "by hand" in kind:
                middle[0].data.mul_(0.999)
            if step and kind.startswith("after"):
                optimizer.param_groups[-1]["lr"] = 0.01
            train(model, optimizer, 1)
            other.step()
            middle[0].requires_grad_(kind != "frozen on the way")
    assert {reading.layer for reading in monitor.failures} == dead
    assert {r.step for r in monitor.failures} == ({every, 2 * every, 3 * every} if dead else set())


def test_bad_interval() -> None:
    model = mlp(16)
    with pytest.raises(InputError, match=r"every=0.*need every >= 1"):
        SpectralMonitor(model, torch.optim.SGD(model.parameters()), every=0)


class Experts(nn.Module):
    """A stack of matrices used slice by slice, and a raw one used whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(2, width, 32) / 6)
        self.mix = nn.Parameter(torch.randn(width, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.cat([x[i::2] @ w.T for i, w in enumerate(self.up)])
        return hidden.relu() @ self.mix


class Images(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, width, 3, padding=1)
        self.back = nn.ConvTranspose1d(width, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.conv(x[:, None]).relu())


class Sequences(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, width, num_layers=2, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(32, width)
        self.attn = nn.MultiheadAttention(2 * width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(x.unflatten(1, (8, 4)))[0]
        return self.attn(h, h, h)[0].mean((1, 2)) + self.cell(x, x[:, :16]).mean(1)


WATCHED = {"layers": mlp, "experts": Experts, "images": Images, "sequences": Sequences}


def trained(
    make: Callable[[int], nn.Module], dtype: torch.dtype | None, *, watch: bool
) -> tuple[list[Tensor], list[SpectralReading]]:
    torch.manual_seed(0)
    model = make(16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = SpectralMonitor(model, optimizer, every=1) if watch else None
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        enabled = dtype is not None
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=enabled):
            loss = model(torch.randn(16, 32, generator=generator)).square().mean()
        loss.backward()
        optimizer.step()
    if monitor is not None:
        monitor.close()
    return [p.detach() for p in model.parameters()], monitor.readings if monitor else []


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", WATCHED)
def test_watching_changes_nothing_and_every_alignment_is_read(
    kind: str, dtype: torch.dtype | None
) -> None:
    if kind == "sequences" and dtype is torch.float16:
        pytest.skip("torch has no LSTM in float16 on a CPU")
    plain, _ = trained(WATCHED[kind], dtype, watch=False)
    watched, readings = trained(WATCHED[kind], dtype, watch=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert len({r.layer for r in readings}) == sum(p.dim() > 1 for p in plain)
    for reading in readings:
        assert 0 < reading.alignment <= 1.02, reading
        assert reading.status == "ok"


@pytest.mark.parametrize("kind", ["images", "experts"])
def test_alignment_of_convolutions_and_experts_is_exact(kind: str) -> None:
    """Truth: what the layer puts out with the new weight minus the old one, on its own input."""
    torch.manual_seed(0)
    model = nn.Conv1d(2, 8, 3, bias=False) if kind == "images" else Experts(8)
    x = torch.randn(6, 2, 9) if kind == "images" else torch.randn(6, 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        model(x).square().mean().backward()
        optimizer.step()
    update = next(model.parameters()).detach() - before[0]
    if kind == "images":
        moved = nn.functional.conv1d(x, update)
        bound = float(rms_operator_norm(update)) * float(x.square().mean().sqrt())
        truth = float(moved.square().mean().sqrt()) / bound
    else:
        sides = [
            (float((x[i::2] @ w.T).square().mean().sqrt()), float(rms_operator_norm(w)) * rms)
            for i, w in enumerate(update)
            for rms in [float(x[i::2].square().mean().sqrt())]
        ]
        truth = sum(a for a, _ in sides) / sum(b for _, b in sides)
    assert monitor.readings[0].alignment == pytest.approx(truth, rel=0.02)


def test_alignment_of_every_recurrent_weight_is_exact() -> None:
    """Truth: the states of two layers stepped by hand with cells."""
    torch.manual_seed(0)
    model, x = nn.RNN(3, 5, num_layers=2), torch.randn(4, 2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        model(x)[0].square().mean().backward()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step()
    read = {r.layer: r.alignment for r in monitor.readings}
    h = x
    for layer in range(2):
        state, states = torch.zeros(2, 5), []
        for row in h:
            ih, hh = (before[f"weight_{way}_l{layer}"] for way in ("ih", "hh"))
            shift = before[f"bias_ih_l{layer}"] + before[f"bias_hh_l{layer}"]
            states.append(state)
            state = torch.tanh(row @ ih.T + state @ hh.T + shift)
        late = torch.stack(states)
        for way, inputs in (("ih", h), ("hh", late)):
            name = f"weight_{way}_l{layer}"
            update = model.get_parameter(name).detach() - before[name]
            bound = float(rms_operator_norm(update)) * float(inputs.square().mean().sqrt())
            truth = float((inputs @ update.T).square().mean().sqrt()) / bound
            assert read[name] == pytest.approx(truth, rel=0.02), name
        h = torch.cat([late[1:], state[None]])


def test_a_zero_readout_makes_no_layer_dead() -> None:
    torch.manual_seed(0)
    model = mlp(64)
    nn.init.zeros_(model.get_parameter("4.weight"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    labels = torch.randint(10, (16,))
    with SpectralMonitor(model, optimizer, every=1) as monitor:
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(16, 32)), labels).backward()
            optimizer.step()
    assert len(monitor.readings) == 12
    assert not monitor.failures


def test_a_compiled_model_trains_as_if_nobody_watched() -> None:
    weights: list[Tensor] = []
    for watch in (False, True):
        torch.manual_seed(0)
        model = mlp(16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = SpectralMonitor(model, optimizer, every=1) if watch else None
        compiled = torch.compile(model, backend="aot_eager")
        train(cast(nn.Module, compiled), optimizer, 3)
        weights.append(model.get_parameter("2.weight").detach())
        assert monitor is None or [math.isnan(r.alignment) for r in monitor.readings] == [True] * 9
    assert torch.equal(*weights)


def test_a_reading_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp(16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def broken(*_: object) -> float:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(_monitor, "_norm", broken)
    before = model.get_parameter("2.weight").detach().clone()
    with (
        SpectralMonitor(model, optimizer, every=1) as monitor,
        pytest.warns(_monitor.MonitorWarning, match=r"step 0 could not be read.*no such kernel"),
    ):
        train(model, optimizer, 1)
    assert not torch.equal(before, model.get_parameter("2.weight"))
    assert not monitor.readings
