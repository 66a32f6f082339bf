"""The coordinate check: µP passes, SP and planted faults are named, the caller is not disturbed."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_tasks import Batch, DeepTask, MlpTask, TiedTask, mlp
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError, MismatchError, TaskError
from thetaone.parametrization import make_parametrization
from thetaone.parametrization.reading import read_blueprint
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


@pytest.mark.parametrize("optimizer", ["RAdam", "ScheduleFreeRAdam"])
def test_an_optimizer_is_looked_at_once_it_steps_as_it_will(optimizer: str) -> None:
    """RAdam's first steps follow the gradient, or are none."""
    check = t1.coordinate_check(
        MlpTask(), widths=(32, 64, 128), lr=2**-8, optimizer=optimizer, seeds=2
    )
    assert check.steps == (8, 10)
    assert check.failures == (), str(check)


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


@pytest.mark.slow
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
        (MlpTask(), {"steps": (0,)}, InputError, "steps=0: need whole numbers from 1"),
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


def test_a_model_is_read_once_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    from thetaone.parametrization.applying import _parametrization, _prescribe

    reads: list[tuple[int, ...]] = []

    def counted(model: nn.Module, **options: Any) -> Any:
        reads.append(tuple(next(model.parameters()).shape))
        return read_blueprint(model, **options)

    for module in (_prescribe, _parametrization):
        monkeypatch.setattr(module, "read_blueprint", counted)
    t1.coordinate_check(MlpTask(), widths=(16, 32, 64), lr=2**-9, seeds=2, max_seeds=2)
    assert sorted(reads) == [(16, 32), (16, 32), (32, 32), (64, 32)]  # the base, and each width


class SharingTask(MlpTask):
    """Its models go on from each other: by a cache, by their parameters, by their memory."""

    def __init__(self, how: str) -> None:
        self.how, self.first = how, dict[int, nn.Module]()

    def model(self, width: int) -> nn.Module:
        first = self.first.setdefault(width, mlp(width))
        if self.how == "cache":
            return first
        if self.how == "part":
            return nn.Sequential(*first.children(), nn.Linear(10, 10))
        model = mlp(width)
        model.load_state_dict(first.state_dict(), assign=self.how == "memory")
        return model


@pytest.mark.parametrize("how", ["cache", "part", "memory"])
def test_a_model_that_is_not_built_anew_is_refused(how: str) -> None:
    with pytest.raises(TaskError, match=r"called twice.*0\.weight.*return a fresh model"):
        t1.coordinate_check(SharingTask(how), widths=[16, 32], lr=0.01)


def test_equal_models_of_two_calls_are_built_anew() -> None:
    assert t1.coordinate_check(SharingTask("copy"), widths=[8, 16], lr=0.01, seeds=1, max_seeds=1)


@pytest.mark.parametrize(
    ("option", "meant"), [({"seed": 2}, "seeds"), ({"role": {}}, "roles"), ({"beta": 0}, "betas")]
)
def test_a_misspelt_option_names_the_argument_meant(option: dict[str, Any], meant: str) -> None:
    with pytest.raises(InputError, match=rf"coordinate_check.. has no argument .*'{meant}'"):
        t1.coordinate_check(MlpTask(), widths=(16, 32), lr=0.01, **option)


def test_widths_and_depths_may_grow_together() -> None:
    options: dict[str, Any] = {"widths": (16, 32, 64), "depths": (2, 4, 8), "lr": 2**-9}
    right = t1.coordinate_check(DeepTask(), optimizer="Adam", **options)
    assert right.passed, str(right)
    assert (right.axis, right.sizes, right.depths) == ("width", (16, 32, 64), (2, 4, 8))
    assert "width 16, 32, 64 at depth 2, 4, 8" in str(right)
    wrong = t1.coordinate_check(DeepTask(), optimizer="Adam", parametrization="sp", **options)
    assert {"blocks.*.up", "blocks.*.down", "readout"} <= set(wrong.failed_layers), str(wrong)


def test_seeds_are_added_only_where_they_may_decide_a_row() -> None:
    """An exponent on the edge of its band: no number of seeds decides it; a little off, six may."""
    asked: Any = {"widths": (16, 32, 64), "lr": 2**-9, "seeds": 4}
    rows = t1.coordinate_check(MlpTask(), max_seeds=4, **asked).rows
    lowest = min((row.law for row in rows if row.law), key=lambda law: law.exponent)
    wide = dict.fromkeys({row.quantity for row in rows}, (-9.0, 9.0))
    quantity = next(row.quantity for row in rows if row.law is lowest)
    for off, seeds in ((0.0, 4), (2.2, 6)):  # in standard errors; t·2/√n is 2.1 at six seeds
        edge = lowest.exponent - off * lowest.stderr
        bands = wide | {quantity: (edge, 9.0)}
        check = t1.coordinate_check(MlpTask(), max_seeds=8, bands=bands, **asked)
        first = t1.coordinate_check(MlpTask(), max_seeds=4, bands=bands, **asked)
        assert [row.seeds_needed for row in first.undecided] == [seeds if off else 0]
        assert check.seeds == seeds


class Uneven(MlpTask):
    """A layer that wide models alone have, and one that the loss does not depend on."""

    def model(self, width: int) -> nn.Module:
        model = mlp(width)
        if width > 16:
            model.insert(4, nn.LayerNorm(width, elementwise_affine=False))
        model.unused = nn.Linear(2, 2, bias=False)
        model.forward = lambda x: nn.Sequential.forward(model[:-1], x)  # pyright: ignore
        return model


def test_what_is_not_judged_is_said() -> None:
    check = t1.coordinate_check(
        Uneven(), widths=(16, 32, 64), lr=2**-9, parametrization=plain_adam, max_seeds=3
    )
    notes = "\n".join(check.notes)
    assert "exists at width 32, 64 only: 5" in notes
    assert "the loss does not depend on it: unused.weight" in notes
    assert notes in str(check)


class Routed(MlpTask):
    """A layer through which the batch of one seed does not go, at one width."""

    seed = 0

    def batches(self, seed: int) -> Iterator[Any]:
        self.seed = seed
        return super().batches(seed)

    def model(self, width: int) -> nn.Module:
        model = mlp(width)
        model.append(nn.LayerNorm(10, elementwise_affine=False))

        def forward(input: Tensor) -> Tensor:
            skips = (self.seed, width) == (1, 32)
            return nn.Sequential(*list(model)[: len(model) - skips])(input)

        model.forward = forward
        return model


def test_rows_that_one_training_lacks_are_named() -> None:
    check = t1.coordinate_check(
        Routed(), widths=(16, 32, 64), lr=2**-9, parametrization=plain_adam, seeds=2, max_seeds=2
    )
    assert not any(row.layer == "5" for row in check.rows)
    notes = "\n".join(check.notes)
    assert "not seen at width 32 with seed 1: 5 feature size, 5 feature update" in notes


def plain_adam(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


def test_verdicts_of_two_answers_are_read() -> None:
    check = t1.coordinate_check(MlpTask(), widths=(16, 32), lr=0.01, seeds=1, max_seeds=1)
    assert {row.answer for row in check.rows if row.law} == {"undecided"}  # one seed, two sizes
    text = check.model_dump_json(indent=2).replace('"answer": "undecided"', '"passed": false')
    old = CoordinateCheck.from_json(text)
    assert {row.answer for row in old.rows if row.law} == {"fails"}


class FailingSeed(MlpTask):
    """Raises at the first batch of a seed."""

    def __init__(self, failing: int) -> None:
        super().__init__()
        self.failing = failing

    def batches(self, seed: int) -> Iterator[Batch]:
        if seed == self.failing:
            raise OSError("shard is lost")
        return super().batches(seed)


class FailingLoss(FailingSeed):
    """Raises in the loss of a seed."""

    def batches(self, seed: int) -> Iterator[Any]:
        return ((seed, batch) for batch in MlpTask().batches(seed))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if batch[0] == self.failing:
            raise ArithmeticError("label out of range")
        return super().loss(model, batch[1])


@pytest.mark.parametrize("kind", [FailingSeed, FailingLoss])
def test_a_seed_that_raises_leaves_the_others_alone(kind: type[FailingSeed]) -> None:
    asked: dict[str, Any] = {"widths": (16, 32), "lr": 2**-9, "steps": [2]}
    check = t1.coordinate_check(kind(1), seeds=[0, 1, 2], max_seeds=3, **asked)
    others = t1.coordinate_check(MlpTask(), seeds=[0, 2], max_seeds=2, **asked)
    assert (check.seeds, check.rows) == (2, others.rows)
    (note,) = [note for note in check.notes if "left out" in note]
    assert note.startswith("Seed 1 is left out: task.")
    assert "test_check.py:" in note


def test_where_every_seed_raises_the_line_is_named() -> None:
    with pytest.raises(TaskError, match=r"raised OSError: shard is lost \(.*test_check.py:\d+"):
        t1.coordinate_check(FailingSeed(1), widths=(16, 32), lr=2**-9, seeds=[1], max_seeds=1)
