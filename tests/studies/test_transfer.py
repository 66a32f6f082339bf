"""The whole job on a task small enough for a test, and every wrong thing a newcomer types."""

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

import thetaone as t1
from thetaone.cli.main import main
from thetaone.errors import InputError, ThetaOneError
from thetaone.laws import verify_laws
from thetaone.records import TransferResult, TrialSpec
from thetaone.rematerialization import plan
from thetaone.studies import transfer
from thetaone.studies.request import settle
from thetaone.studies.target import Target, plan_memory, train
from thetaone.sweeps import Work
from thetaone.tasks import load_task


class Regression:
    """A two-hidden-layer network on a product of inputs: a task as a plain object."""

    @staticmethod
    def model(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    @staticmethod
    def batches(seed: int):
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(32, 8, generator=generator)
            yield x, (x[:, :4] * x[:, 4:]).sum(1, keepdim=True)

    @staticmethod
    def loss(model: nn.Module, batch) -> torch.Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])


LRS = [2.0**power for power in range(-9, -3)]
SMALL: dict[str, Any] = {
    "widths": [16, 32],
    "target": 64,
    "lrs": LRS,
    "seeds": [0, 1],
    "steps": 20,
    "optimizer": torch.optim.Adam,
    "engine": "serial",
}


@pytest.fixture(scope="module", autouse=True)
def quick_laws():
    """The laws have tests of their own; here the exact one stands for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "thetaone.studies._job.verify_laws", lambda: verify_laws(["rematerialization"])
        )
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("report")
    phases: list[str] = []
    result = transfer(
        Regression(),
        memory="160KiB",
        report=folder,
        progress=lambda event: phases.append(event.phase),
        **SMALL,
    )
    return result, folder, phases


def test_every_phase_reports(found) -> None:
    _, _, phases = found
    assert list(dict.fromkeys(phases)) == [
        "memory", "sweep mup", "sweep sp", "check mup", "check sp", "target", "laws",
    ]  # fmt: skip


def test_the_rate_is_the_vertex_of_the_widest_model(found) -> None:
    result, *_ = found
    assert result.chosen_lr == 2.0 ** result.mup.optima[32].log2_lr


def test_trials_at_the_base_width_are_trained_once() -> None:
    """There µP is plain PyTorch: at the target's width, when it is swept, or at one named."""
    changes: list[tuple[dict[str, Any], int, int]] = [
        ({"widths": [16, 64], "steps": 2}, 64, 16),
        ({"base_width": 16, "steps": 2}, 16, 32),
    ]
    for change, base, other in changes:
        result = transfer(Regression(), **(SMALL | change))
        assert result.mup.final_losses(base) == result.sp.final_losses(base)
        assert result.mup.final_losses(other) != result.sp.final_losses(other)


@pytest.mark.parametrize("optimizer", ["AdamW", "Adam", "SGD", "Muon+AdamW"])
def test_the_target_is_plain_pytorch(optimizer: str) -> None:
    """Bit for bit what a loop without thetaone trains at the chosen rate from the same seed."""
    result = transfer(Regression(), **(SMALL | {"steps": 6, "optimizer": optimizer}))
    torch.manual_seed(0)
    model, batches = Regression.model(64), Regression.batches(0)
    if optimizer == "Muon+AdamW":
        hidden = [model.get_parameter("2.weight")]
        rest = [p for p in model.parameters() if p is not hidden[0]]
        steppers = [
            torch.optim.Muon(hidden, lr=result.chosen_lr),
            torch.optim.AdamW(rest, lr=result.chosen_lr),
        ]
    else:
        steppers = [getattr(torch.optim, optimizer)(model.parameters(), lr=result.chosen_lr)]
    losses = []
    for _ in range(6):
        loss = Regression.loss(model, next(batches))
        model.zero_grad()
        loss.backward()
        for stepper in steppers:
            stepper.step()
        losses.append(loss.item())
    assert result.target.losses == tuple(losses)


def test_the_target_kept_its_budget_and_its_gradients(found) -> None:
    result, *_ = found
    account = result.memory.account
    assert 0 < account.measured_peak_bytes <= account.budget_bytes == 160 * 2**10
    assert result.memory.gradients.bitwise_equal
    assert result.memory.gradients.n_tensors == 6


def test_static_bytes_are_those_of_adam(found) -> None:
    account = found[0].memory.account
    n = sum(p.numel() for p in Regression.model(64).parameters())
    assert account.weights_bytes == account.gradients_bytes == 4 * n
    assert account.optimizer_bytes == 2 * 4 * n + 4 * 6  # two moments, and a step count a tensor


def test_direct_sweep_flops_are_counted(found) -> None:
    result, *_ = found

    def step_flops(width: int) -> int:  # forward, weight gradient; input gradient but the first
        return 2 * 32 * (2 * 8 * width + 3 * width * width + 3 * width)

    assert result.cost.direct_flops == len(LRS) * 2 * 20 * step_flops(64)
    steps = {w: sum(len(t.losses) for t in result.mup.trials if t.width == w) for w in (16, 32)}
    assert result.cost.transfer_flops == sum(n * step_flops(w) for w, n in steps.items())


def test_the_report_is_written_and_read_back(found) -> None:
    result, folder, _ = found
    # as text: a record with a NaN is not equal to itself
    assert TransferResult.from_json(folder / "result.json").to_json() == result.to_json()
    assert "Tensor Programs V" in (folder / "index.html").read_text(encoding="utf-8")


def test_asked_twice_it_trains_only_the_target(found) -> None:
    first, folder, _ = found
    again = transfer(Regression(), memory="160KiB", report=folder, **SMALL)
    assert (again.mup.n_trained, again.sp.n_trained) == (0, 0)
    assert again.target.losses == first.target.losses
    assert again.chosen_lr == first.chosen_lr


def test_the_summary_begins_with_what_to_do(found) -> None:
    lines = str(found[0]).splitlines()
    assert "train your model as it is, at rate" in lines[0]
    low, high = found[0].recipe.lr_interval
    ends = {f"{end:.2g}" for end in (low, high) if 0 < end < math.inf}
    assert f"{found[0].chosen_lr:.3g}{' (' if ends else ''}" in lines[0]
    assert all(end in lines[0] for end in ends)


def test_json_of_the_result_is_strict(found) -> None:
    text = (found[1] / "result.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [16]}, r"widths=\[16\]: need at least two"),
        ({"widths": [0, 16]}, r"widths=0: need whole numbers from 1"),
        ({"target": 24}, r"target=24 lies below the largest width swept, 32"),
        ({"steps": 0}, r"steps=0"),
        ({"seeds": []}, r"seeds=\[\]"),
        ({"lrs": [0.1, -1]}, r"lr.*-1"),
        ({"memory": "lots"}, r"memory='lots' is not a quantity"),
        ({"storage": 5}, r"storage=5 of type int: pass the path of a file"),
    ],
)
def test_bad_numbers(change, message) -> None:
    with pytest.raises(InputError, match=message):
        transfer(Regression(), **(SMALL | change))


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"options": ["momentum"]}, r"options of task mine is \['momentum'\]: write a mapping"),
        ({"optimizer": "SGD", "beta2": 0.9}, "task mine says beta2 = 0.9, which SGD does not take"),
        ({"optimizer": ("SGD", {"eps": 1e-9})}, "task mine says eps = 1e-09, which SGD does not"),
        ({"momentum": 0.9}, "task mine says momentum = 0.9, which AdamW does not take"),
        ({"options": {"lr": 0.1}}, r"lr=0\.1 among the optimizer's options: the rate is what is"),
    ],
)
def test_what_a_task_says_of_its_optimizer_is_checked(says, message) -> None:
    task = type("mine", (Regression,), says)()
    with pytest.raises(ThetaOneError, match=message):
        transfer(task, **{**SMALL, "optimizer": None})


@pytest.mark.parametrize(
    ("says", "options", "betas"),
    [
        ({"beta1": 0.5}, {}, (0.5, 0.999)),
        ({"beta1": 0.5}, {"beta2": 0.7}, (0.5, 0.7)),
        ({}, {"beta1": 0.5}, (0.5, 0.999)),
        ({"betas": (0.5, 0.6)}, {"beta2": 0.7}, (0.5, 0.7)),
        ({"options": {"betas": [0.5, 0.6]}}, {"beta2": 0.7}, (0.5, 0.7)),
        ({"optimizer": ("AdamW", {"betas": (0.5, 0.6)})}, {"beta2": 0.7}, (0.5, 0.7)),
        ({"beta2": 0.6}, {"betas": (0.5, 0.7)}, (0.5, 0.7)),
        ({"options": {"beta2": 0.6}, "beta1": 0.5}, {}, (0.5, 0.6)),
        ({"optimizer": "Lion"}, {"beta1": 0.5}, (0.5, 0.99)),
    ],
)
def test_parts_of_betas_replace_no_more_than_that_part(says, options, betas) -> None:
    request = settle(type("mine", (Regression,), says)(), call=transfer, axes=SMALL,
                     training={}, choices={}, options=options)  # fmt: skip
    assert request.options == {"betas": betas}


def test_nothing_said_is_nothing_said() -> None:
    names = ("optimizer", "options", "weight_decay", "betas", "schedule", "clip")
    says: dict[str, Any] = {name: None for name in names}  # noqa: C420
    request = settle(type("mine", (Regression,), says)(), call=transfer, axes=SMALL,
                     training={}, choices={}, options={})  # fmt: skip
    assert (request.optimizer, request.options) == (torch.optim.AdamW, {})
    assert request.loop.plain


TASK = """
import torch
from torch import nn

def model(width):
    return nn.Sequential(nn.Linear(8, {width}), nn.ReLU(), nn.Linear({width}, 1))

def batches(seed):
    while True:
        yield torch.ones(4, 8)

def loss(model, batch):
    return model(batch){reduction}
"""
GOOD = TASK.format(width="width", reduction=".square().mean()")
CALL = ["--widths", "16,32", "--target", "64", "--steps", "3", "--seeds", "0", "--lrs", "2^-6:2^-4"]


@pytest.mark.parametrize(
    ("source", "extra", "message"),
    [
        (GOOD.replace("def model", "def net"), [], "model"),
        (
            TASK.format(width=16, reduction=".square().mean()"),
            [],
            "use its width argument",
        ),
        (TASK.format(width="width", reduction=""), [], "scalar"),
        (GOOD, ["--optimizer", "Adamm"], "Adamm"),
        (GOOD, ["--memory", "1KiB"], "bytes"),
        (GOOD, ["--report", "/proc/nowhere"], "/proc/nowhere"),
        (GOOD, ["--option", "momentun=0.9"], "momentun"),
        (GOOD, ["--widths", "a,b"], "widths"),
        (GOOD, ["--lrs", "fast"], "lrs"),
    ],
    ids=[
        "model",
        "fixed-width",
        "loss",
        "optimizer",
        "budget",
        "report",
        "option",
        "widths",
        "lrs",
    ],
)
def test_bad_input_is_one_line_and_exit_2(source, extra, message, tmp_path, capsys) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(source)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["transfer", str(path), *CALL, *extra])
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("thetaone: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_debug_shows_the_traceback(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["--debug", "transfer", str(tmp_path / "gone.py"), "--target", "64"])
    assert "Traceback" in capsys.readouterr().err


class Deep:
    """Eight wide blocks on a large batch: activations outweigh weights, so that plans differ."""

    @staticmethod
    def model(width: int) -> nn.Module:
        blocks = [nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(8)]
        return nn.Sequential(nn.Linear(8, width), *blocks, nn.Linear(width, 1))

    @staticmethod
    def batches(seed: int):
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(512, 8, generator=generator)
            yield x, x.sum(1, keepdim=True)

    loss = staticmethod(Regression.loss)


def test_a_budget_is_used_as_far_as_its_schedules_go() -> None:
    """Between floor and store-all, no fixed share is left: the next best schedule does not fit."""
    target = Target(
        work=Work(
            task=load_task(Deep()),
            make_optimizer=lambda model, width, lr: torch.optim.Adam(model.parameters(), lr=lr),
        ),
        spec=TrialSpec(width=32, lr=2**-6, seed=0, n_steps=3, rule="sp"),
    )

    def peak_of(schedule) -> int:
        return train(
            target.work, target.spec, schedule=schedule, on_step=lambda *_: None
        ).peak_bytes

    unlimited = plan_memory(target, None).account.measured_peak_bytes
    left: dict[float, bool] = {}
    for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        budget = int(share * unlimited)
        found = plan_memory(target, budget)
        account = found.account
        assert found.schedule is not None
        assert peak_of(found.schedule) == account.predicted_peak_bytes <= budget
        assert account.predicted_peak_bytes == (
            account.weights_bytes + account.gradients_bytes + account.optimizer_bytes
            + account.outside_bytes + found.schedule.peak_bytes
        )  # fmt: skip
        faster = [
            point.peak_bytes
            for point in found.frontier.points
            if point.total_seconds < found.schedule.total_seconds
        ]
        if faster:
            next_one = plan(found.chain, budget=min(faster))
            assert peak_of(next_one) > budget
        left[share] = bool(faster)
    assert left[0.5]  # there is something to give up
    assert not left[1.0]  # store-all is its own budget


def test_the_account_of_a_mixture_counts_both_states() -> None:
    """Muon keeps one momentum of the hidden matrix; AdamW two moments and a count of the rest."""
    result = transfer(Regression(), **(SMALL | {"optimizer": "Muon+AdamW", "steps": 2}))
    assert result.optimizer == "Muon+AdamW"
    assert result.memory is not None
    account = result.memory.account
    n = sum(p.numel() for p in Regression.model(64).parameters())
    hidden = 64 * 64
    assert account.optimizer_bytes == 4 * hidden + 8 * (n - hidden) + 4 * 5


class NoDefaults(Regression):
    """A task that leaves all axes open."""


@pytest.mark.parametrize(
    ("call", "arguments", "option", "meant"),
    [
        (t1.sweep, {}, {"seed": [0]}, "seeds"),
        (t1.transfer, {"target": 64}, {"scheduler": None}, "schedule"),
        (t1.transfer, {"target": 64}, {"role": {}}, "roles"),
        (t1.coordinate_check, {"widths": [8, 16], "lr": 0.1}, {"seedz": 1}, "seeds"),
    ],
)
def test_a_misspelt_argument_is_named_before_anything_else(call, arguments, option, meant) -> None:
    name = f"has no argument {next(iter(option))!r}.*did you mean {meant!r}"
    with pytest.raises(InputError, match=name):
        call(NoDefaults(), **arguments, **option)
