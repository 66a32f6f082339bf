"""Readings are kept: of a model unchanged, and of models built alike; never of one that differs."""

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1
from thetaone.parametrization.reading import _blueprint, read_blueprint


class Model(nn.Module):
    """What may differ between two models of the same names and shapes."""

    def __init__(
        self, scale: float = 1.0, constant: float = 1.0, activation: object = torch.relu,
        tied: bool = False, heads: tuple[int, ...] = (2,),
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.activation, self.heads = scale, activation, heads
        self.constant = torch.tensor(constant)
        self.first, self.mid, self.twin = (nn.Linear(8, 8) for _ in range(3))
        if tied:
            self.twin.weight = self.mid.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x) * self.scale * self.constant
        assert callable(self.activation)
        return self.twin(self.activation(self.mid(h)))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models whose forward pass was run to be read."""
    read: list[nn.Module] = []
    trace = _blueprint.trace

    def counted(model: nn.Module, run: object) -> object:
        read.append(model)
        return trace(model, run)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(_blueprint, "trace", counted)
    monkeypatch.setattr(_blueprint, "_READ", type(_blueprint._READ)())
    return read


def test_a_model_built_alike_is_not_read_again(passes: list[nn.Module]) -> None:
    first = read_blueprint(Model(), measure=False)
    assert read_blueprint(Model(), measure=False) == first
    assert len(passes) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 2.0},
        {"constant": 2.0},
        {"activation": torch.tanh},
        {"tied": True},
        {"heads": (4,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_model_that_differs_is_read(passes: list[nn.Module], change: dict[str, object]) -> None:
    read_blueprint(Model(), measure=False)
    read_blueprint(Model(**change), measure=False)  # pyright: ignore[reportArgumentType]
    assert len(passes) == 2


def test_an_attribute_of_another_kind_is_no_reason_to_confuse_two_models(
    passes: list[nn.Module],
) -> None:
    class Config:
        def __init__(self, scale: float) -> None:
            self.scale = scale

    class Configured(nn.Linear):
        def __init__(self, scale: float) -> None:
            super().__init__(8, 8)
            self.config = Config(scale)

        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * self.config.scale

    factors = [read_blueprint(Configured(s), measure=False).sites[0].factor for s in (1.0, 3.0)]
    assert factors == [1.0, 3.0]
    model = Configured(1.0)
    read_blueprint(model, measure=False)
    read_blueprint(model, measure=False)
    assert len(passes) == 3


def test_a_stored_blueprint_asks_for_one_pass_of_all_like_targets(passes: list[nn.Module]) -> None:
    base = read_blueprint(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    for _ in range(3):
        target = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        assert t1.prescribe(target, base=base)["2.weight"].lr_factor == 0.25
    assert len(passes) == 2


def test_a_reading_that_a_target_asked_for_does_not_lend_it_its_sizes() -> None:
    """The sizes of a base are its own, though a model built alike was read without any before."""
    t1.prescribe(Model(), base=Model())
    base = Model()
    torch.nn.init.constant_(base.first.weight, 0.25)
    wide = read_blueprint(base)
    assert wide.by_name["first.weight"].rms == 0.25


def test_a_prescription_does_not_depend_on_those_before() -> None:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 10))

    first = t1.prescribe(net(256), base=lambda: net(64))["2.weight"]
    assert first.init_std is not None
    t1.prescribe(net(64), base=lambda: net(64))  # measures the same base, by the same reading
    again = t1.prescribe(net(256), base=lambda: net(64))["2.weight"]
    assert again.init_std == pytest.approx(first.init_std)
