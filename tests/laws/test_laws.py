"""Every law holds; every formula that is 2 % off, and every swapped rule, is seen."""

import inspect
import math
from types import ModuleType
from typing import Any

import pytest
import torch

from thetaone.cli.main import main
from thetaone.errors import InputError
from thetaone.laws import verify_laws
from thetaone.laws._catalogue import laws
from thetaone.laws._verdict import Law
from thetaone.laws.formulas import _estimators as estimators
from thetaone.laws.formulas import _features as features
from thetaone.laws.formulas import _rematerialization as rematerialization
from thetaone.laws.formulas import _sign_step as sign_step
from thetaone.laws.formulas import _spectral as spectral
from thetaone.laws.formulas import _transfer as transfer
from thetaone.laws.measurements import _figure_one as figure_one
from thetaone.records import MeasuredLaws

LAW_OF: dict[ModuleType, str] = {
    features: "features-at-init",
    sign_step: "sign-step",
    transfer: "adam-table",
    spectral: "spectral-condition",
    estimators: "gradient-estimators",
    rematerialization: "rematerialization",
}
FORMULAS = [
    (module, name)
    for module in LAW_OF
    for name, value in vars(module).items()
    if inspect.isfunction(value) and value.__module__ == module.__name__
]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.statistical
@pytest.mark.parametrize("name", laws())
def test_law_holds(name: str) -> None:
    before = torch.random.get_rng_state()
    results = verify_laws([name])
    assert [r.quantity for r in results if not r.passed] == []
    assert {r.name for r in results} == {name}
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.statistical
@pytest.mark.parametrize("factor", [1.02, 0.98])
@pytest.mark.parametrize(
    ("module", "name"), FORMULAS, ids=[f"{m.__name__.split('.')[-1]}.{n}" for m, n in FORMULAS]
)
def test_a_formula_that_is_two_percent_off_fails(
    module: ModuleType, name: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    formula = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: factor * formula(*a, **k))
    assert not all(result.passed for result in verify_laws([LAW_OF[module]]))


def test_figure_one_fails_when_the_rule_is_the_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of theory to perturb here: an exponent of 0 in µP. The rule itself is swapped."""
    rule = transfer.hidden_adam_rate_factor
    monkeypatch.setattr(transfer, "hidden_adam_rate_factor", lambda ratio, _: rule(ratio, "SP"))
    failed = {r.quantity for r in verify_laws(["figure-1"]) if not r.passed}
    assert any("µP" in quantity for quantity in failed)
    monkeypatch.setattr(transfer, "hidden_adam_rate_factor", lambda ratio, _: rule(ratio, "µP"))
    failed = {r.quantity for r in verify_laws(["figure-1"]) if not r.passed}
    assert any("SP" in quantity for quantity in failed)


def test_figure_one_is_the_same_network_at_the_base_width() -> None:
    for (left, rate), (right, other) in zip(
        figure_one._weights(figure_one.NARROW, "µP"),
        figure_one._weights(figure_one.NARROW, "SP"),
        strict=True,
    ):
        assert torch.equal(left, right)
        assert rate == other == 1


def test_hand_written_adam_is_torchs() -> None:
    p = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = p.clone(), p.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.01)
    first, second = torch.zeros_like(p), torch.zeros_like(p)
    for step in range(1, 6):
        gradient = torch.sin(step * p)
        theirs.grad = gradient
        optimizer.step()
        figure_one._adam(ours, gradient, first, second, step=step, rate=torch.tensor(0.01))
    assert torch.allclose(ours, theirs.detach(), rtol=0, atol=1e-6)


def test_source_numbers_of_rematerialization() -> None:
    predicted = [result.predicted for result in verify_laws(["rematerialization"])]
    assert predicted[:7] == [20, 10, 500, 50, 2, 6, 220]


@pytest.mark.parametrize(
    ("length", "slots", "advances"),
    [
        (10, 1, 45),
        (10, 2, 20),
        (24, 4, 51),
        (50, 30, 68),
        (200, 20, 378),
        (1000, 10, 3636),
        (1, 3, 0),
    ],
)
def test_optimal_advances_against_published_counts(length: int, slots: int, advances: int) -> None:
    assert rematerialization.optimal_advances(length, slots) == advances


@pytest.mark.parametrize(("length", "keep_every"), [(10, 3), (7, 7), (5, 1), (11, 4)])
def test_periodic_formula_with_a_ragged_end(length: int, keep_every: int) -> None:
    positions = [layer % keep_every for layer in range(length)]
    assert rematerialization.periodic_forwards(length, keep_every) == sum(positions)
    assert rematerialization.once_per_segment_loads(length, keep_every) == positions.count(0)


def test_sign_step_rate_tends_to_root_half_pi_over_fan_in() -> None:
    limit = math.sqrt(math.pi / 2)
    gaps = [abs(sign_step.sign_step_rate(n) * n / limit - 1) for n in (10, 100, 1000)]
    assert gaps[0] > 9 * gaps[1] > 80 * gaps[2]


@pytest.mark.float32
@pytest.mark.parametrize(
    ("samples", "predicted", "passed", "note"),
    [
        (torch.tensor([1.0, 1.001] * 50), 1.0005, True, "z = +0.0"),
        (torch.tensor([1.0, 1.001] * 50), 1.02, False, "z = "),
        (torch.tensor([0.0, 2.0] * 50), 1.0, False, "too few samples"),
        (torch.ones(10), 1.0, False, "too few samples"),  # no scatter at all is no measurement
    ],
)
def test_verdict(samples: torch.Tensor, predicted: float, passed: bool, note: str) -> None:
    result = Law("n", "t").statistical("q", predicted, samples)
    assert result.passed is passed
    assert note in result.note


def test_nan_never_passes() -> None:
    law, nan = Law("n", "t"), float("nan")
    for result in (
        law.estimate("q", 1.0, nan, 0.001),
        law.estimate("q", nan, 1.0, 0.001),
        law.estimate("q", 1.0, 1.0, nan),
        law.exact("q", 1.0, nan),
        law.bound("q", "≤", 1.0, nan),
        law.bound("q", "≥", 1.0, nan),
    ):
        assert not result.passed


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(InputError, match="unknown law 'sign': the laws are features-at-init, sign"):
        verify_laws(["sign"])


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit, match=r"^\d+$") as stopped:
        main(["laws", *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_command_prints_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only", "rematerialization") == 0
    printed = capsys.readouterr().out
    assert "10 of 10 measurements agree" in printed
    assert "break-even load time of a disk [ns]" in printed


def test_command_in_json_is_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only", "spectral-condition", "--only", "rematerialization", "--json") == 0
    measured = MeasuredLaws.from_json(capsys.readouterr().out)
    assert [row.passed for row in measured.results] == [True] * 16


def test_command_fails_with_a_law(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rematerialization, "periodic_loads", lambda length: length + 1)
    assert run("--only", "rematerialization") == 1
    assert "FAIL" in capsys.readouterr().out


def test_command_with_an_unknown_law(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only", "sign") == 2
    assert "unknown law 'sign'" in capsys.readouterr().err
