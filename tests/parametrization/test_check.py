"""The coordinate check: µP passes, SP and planted faults are named, the caller is not disturbed."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_tasks import Batch, MlpTask, TiedTask, mlp
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError, MismatchError, TaskError
from thetaone.parametrization import make_parametrization
from thetaone.records import CoordinateCheck

WIDTHS = (64, 128, 256, 512)
RATES = {"Adam": 2**-9, "AdamW": 2**-9, "SGD": 0.1}


@pytest.mark.parametrize("optimizer", RATES)
def test_mup_passes_and_sp_fails(optimizer: str) -> None:
    for parametrization in ("mup", "sp"):
        check = t1.coordinate_check(
            MlpTask(),
            widths=WIDTHS,
            lr=RATES[optimizer],
            optimizer=optimizer,
            parametrization=parametrization,
        )
        assert check.passed is (parametrization == "mup"), str(check)
        assert "2" in check.failed_layers or parametrization == "mup"


def test_tied_readout_passes() -> None:
    check = t1.coordinate_check(TiedTask(), widths=WIDTHS, lr=2**-8, optimizer="Adam")
    assert check.passed, str(check)


class Product(nn.Module):
    """Two inputs multiplied by a bilinear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(32, width), nn.Linear(32, width)
        self.product = nn.Bilinear(width, width, width)
        self.readout = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.product(self.left(x).relu(), self.right(x).relu()))


class ProductTask(MlpTask):
    def model(self, width: int) -> nn.Module:
        return Product(width)


@pytest.mark.parametrize(("optimizer", "lr"), [("Adam", 2**-9), ("SGD", 0.3)])
def test_bilinear_layers_pass(optimizer: str, lr: float) -> None:
    check = t1.coordinate_check(ProductTask(), widths=(16, 32, 64, 128), lr=lr, optimizer=optimizer)
    assert check.passed, str(check)


def test_bundled_text_model() -> None:
    check = t1.coordinate_check("lm", widths=(32, 64, 128), lr=2**-7, seeds=2)
    assert check.passed, str(check)
    plain = t1.coordinate_check("lm", widths=(32, 64, 128), lr=2**-7, seeds=2, parametrization="sp")
    assert not plain.passed
    assert "blocks.0.qkv" in plain.failed_layers
    assert "must fall as 1/fan_in" in str(plain)


def test_the_record_round_trips_and_the_random_stream_goes_on() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    check = t1.coordinate_check(MlpTask(), widths=(16, 32), lr=0.01, seeds=2, steps=(1, 2))
    assert torch.equal(torch.randn(3), expected)
    assert CoordinateCheck.from_json(check.to_json()) == check
    assert check.widths == (16, 32)
    assert {row.step for row in check.rows} == {0, 1, 2}


class Narrow(MlpTask):
    def model(self, width: int) -> nn.Module:
        return mlp(16)


class NotScalar(MlpTask):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch[0])


class Empty(MlpTask):
    def batches(self, seed: int) -> Iterator[Batch]:
        return iter(())


@pytest.mark.parametrize(
    ("task", "options", "error", "message"),
    [
        (Narrow(), {}, MismatchError, r"the model's width does not change"),
        (NotScalar(), {}, TaskError, r"returned shape \(64, 10\): return a scalar"),
        (Empty(), {}, TaskError, r"batches\(seed=0\) is empty"),
        (MlpTask(), {"widths": (16,)}, InputError, r"need at least 2 different widths"),
        (MlpTask(), {"steps": (0,)}, InputError, r"steps=\[0\]"),
        (MlpTask(), {"parametrization": "ntk"}, InputError, r"choose 'mup', 'sp'"),
    ],
)
def test_bad_requests(
    task: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        t1.coordinate_check(task, **{"widths": (16, 32), "lr": 0.01, "seeds": 1, **options})


def test_a_recipe_can_be_sent_to_another_process() -> None:
    recipe = pickle.loads(pickle.dumps(make_parametrization("mup", MlpTask(), 16, torch.optim.SGD)))
    assert [g["lr"] for g in recipe(mlp(64), 64, 1.0).param_groups] == [4.0, 1.0, 0.25]
    plain = make_parametrization(
        "sp", MlpTask(), 16, torch.optim.SGD, {"momentum": 0.9, "decay": "none"}
    )
    assert [(g["lr"], g["momentum"]) for g in plain(mlp(64), 64, 1.0).param_groups] == [(1.0, 0.9)]
