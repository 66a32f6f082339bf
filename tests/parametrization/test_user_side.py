"""What users call: their own pytest, the shell, mixed optimizers, schedules, the spectral mode."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytorch_optimizer import Lion, SignSGD
from small_tasks import DeepTask, MlpTask, TiedModel, mlp
from torch import Tensor, nn

import thetaone as t1
from thetaone.cli.main import main
from thetaone.errors import PrescriptionError
from thetaone.parametrization import FlattenedRatiosWarning, per_group
from thetaone.parametrization.reading import rms_of
from thetaone.testing import assert_width_invariant


def test_assert_width_invariant_speaks_plainly() -> None:
    assert_width_invariant(MlpTask(), widths=(64, 256), lr=2**-9, optimizer="Adam", seeds=2)
    with pytest.raises(AssertionError, match=r"2: its update norm at step 3 changes .*-fold"):
        assert_width_invariant(
            MlpTask(), widths=(64, 256), lr=2**-9, optimizer="Adam", seeds=2, parametrization="sp"
        )


@pytest.mark.parametrize(("parametrization", "code"), [("mup", 0), ("sp", 1)])
def test_check_on_the_command_line(
    parametrization: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", "lm", "--widths", "32,64,128", "--seeds", "2"]
    with pytest.raises(SystemExit, match=f"^{code}$"):
        main([*arguments, "--parametrization", parametrization])
    outcome = "FAILED in" if code else "passed"
    assert f"Coordinate check {outcome}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parametrization", "code"), [pytest.param("mup", 0, marks=pytest.mark.slow), ("sp", 1)]
)
def test_depths_on_the_command_line(
    parametrization: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", "lm", "--widths", "32", "--depths", "1,4,16", "--seeds", "1"]
    with pytest.raises(SystemExit, match=f"^{code}$"):
        main([*arguments, "--parametrization", parametrization])
    assert "depth 1, 4, 16" in capsys.readouterr().out


def test_assert_width_invariant_names_depth() -> None:
    with pytest.raises(AssertionError, match=r"(?s)From depth 2 to 16 .*s\.\*\.down: its weight"):
        assert_width_invariant(
            DeepTask(), widths=[16], depths=[2, 16], lr=2**-9, parametrization="sp", seeds=2
        )


def test_muon_for_hidden_matrices_and_adamw_for_the_rest() -> None:
    model, base = TiedModel(64), TiedModel(16)
    mixture = {"hidden": (torch.optim.Muon, {"lr": 0.02}), "rest": torch.optim.AdamW}
    optimizer = t1.parametrize(model, base=base, optimizer=mixture, lr=0.003)
    seen = [(g["lr"], [tuple(p.shape) for p in g["params"]]) for g in optimizer.param_groups]
    assert sorted(seen) == [(0.00075, [(64,)]), (0.003, [(50, 64)]), (0.005, [(64, 64)])]
    before = copy.deepcopy(model.state_dict())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    model(torch.arange(50)).square().mean().backward()
    optimizer.step()
    schedule.step()
    assert all(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert {g["lr"] for g in optimizer.param_groups} == {0.000375, 0.0015, 0.0025}
    other = t1.parametrize(model, base=base, optimizer=mixture, lr=0.003, rescale=False)
    other.load_state_dict(optimizer.state_dict())
    assert {g["lr"] for g in other.param_groups} == {0.000375, 0.0015, 0.0025}


def test_muon_alone_on_an_embedding_shows_the_mixture() -> None:
    with pytest.raises(PrescriptionError, match=r"embedding.*optimizer=\{'hidden': Muon"):
        t1.prescribe(TiedModel(64), base=TiedModel(16), optimizer=torch.optim.Muon)


@pytest.mark.parametrize("cls", [Lion, SignSGD])
def test_sign_optimizers_of_pytorch_optimizer(cls: Any) -> None:
    optimizer = t1.parametrize(mlp(64), base=mlp(16), optimizer=cls, lr=1.0, weight_decay=0.1)
    seen = [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert seen == [(1.0, 0.1), (0.25, pytest.approx(0.4))]


def test_tensor_rates_are_not_shared() -> None:
    rate = torch.tensor(0.5)
    optimizer = t1.parametrize(mlp(64), base=mlp(16), optimizer=torch.optim.Adam, lr=rate)
    rates = [g["lr"] for g in optimizer.param_groups]
    assert all(isinstance(r, torch.Tensor) for r in rates)
    assert [r.item() for r in rates][:2] == [0.5, 0.125]
    assert rate.item() == 0.5


def test_adagrads_initial_value_scales_like_a_squared_gradient() -> None:
    model = mlp(64)
    optimizer = t1.parametrize(
        model, base=mlp(16), optimizer=torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.5
    )
    sums = [optimizer.state[p]["sum"].unique().tolist() for p in model.parameters()]
    assert sums == [[0.5 / 16], [0.5 / 16], [0.5]]


def step(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


def test_a_flattening_schedule_is_named_and_the_list_cures_it() -> None:
    def build() -> torch.optim.Optimizer:
        return t1.parametrize(mlp(64), base=mlp(16), optimizer=torch.optim.Adam, lr=0.1)

    flat = build()
    torch.optim.lr_scheduler.OneCycleLR(flat, max_lr=0.1, total_steps=10)
    with pytest.warns(FlattenedRatiosWarning, match=r"OneCycleLR.*per_group"):
        step(flat)
    right = build()
    torch.optim.lr_scheduler.OneCycleLR(right, max_lr=per_group(right, 0.1), total_steps=10)
    step(right)
    assert right.param_groups[1]["lr"] == pytest.approx(right.param_groups[0]["lr"] / 4)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("shrinkage", 0.4), ("sqrt-width", 0.2), ("unscaled", 0.1), ("independent", 0.8), ("none", 0)],
)
def test_decay_of_a_hidden_matrix_as_torch_applies_it(decay: str, expected: float) -> None:
    """One AdamW step without gradient multiplies the weight by 1 − ηλ, with η = 0.5 / 4."""
    model = nn.Linear(64, 64, bias=False)
    optimizer = t1.parametrize(
        model, base=nn.Linear(16, 16, bias=False), lr=0.5, weight_decay=0.1, decay=decay
    )
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.125 * expected))


def test_vectors_can_be_left_out_of_decay() -> None:
    optimizer = t1.parametrize(
        nn.Linear(64, 64), base=nn.Linear(16, 16), lr=0.1, weight_decay=0.1, decay_vectors=False
    )
    assert [g["weight_decay"] for g in optimizer.param_groups] == [pytest.approx(0.4), 0.0]


def test_spectral_mode_has_the_papers_sizes_and_an_exact_norm() -> None:
    model = mlp(256)
    t1.parametrize(model, base=None, optimizer=torch.optim.SGD, lr=0.1)
    expected = [32**-0.5, 256**-0.5, 256**-0.5 * (10 / 256) ** 0.5]
    assert [rms_of(p) for p in model.parameters()] == pytest.approx(expected, rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    t1.parametrize(model, base=None, lr=0.1, init="orthogonal", generator=generator)
    for weight in model.parameters():
        norm = torch.linalg.matrix_norm(weight.detach(), ord=2).item()
        assert norm == pytest.approx((weight.shape[0] / weight.shape[1]) ** 0.5, rel=1e-4)


class TwoInputs(nn.Module):
    """A model whose inputs no one can guess."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(7, width), nn.Linear(5, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last((self.one(x) + self.two(y)).relu())


class TwoInputsTask:
    def model(self, width: int) -> nn.Module:
        return TwoInputs(width)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, ...]]:
        g = torch.Generator().manual_seed(seed)
        while True:
            yield torch.randn(8, 7, generator=g), torch.randn(8, 5, generator=g)

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return model(*batch).square().mean()


@pytest.mark.slow
def test_a_task_is_read_through_its_loss_wherever_it_is_read() -> None:
    """A guess of its inputs fails and is warned of, and warnings are errors here."""
    t1.transfer(
        TwoInputsTask(), widths=[8, 16], target=32, lrs=[2**-8, 2**-7, 2**-6], steps=2, seeds=[0]
    )
