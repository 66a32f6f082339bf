from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Batch, Toy
from typer.testing import CliRunner

import thetaone as t1
from thetaone.cli.main import app
from thetaone.errors import InputError
from thetaone.records import SweepResult, Trial

SMALL: dict[str, Any] = {
    "widths": [4, 8], "lrs": [2**-8, 2**-6, 2**-4], "seeds": [0, 1], "steps": 6, "engine": "serial",
}  # fmt: skip
ONE: dict[str, Any] = {**SMALL, "widths": [4], "lrs": [2**-6], "seeds": [0]}


class Net(nn.Module):
    """An embedding by a matrix, a hidden layer, a readout, with factors in the forward pass."""

    def __init__(self, width: int, embedding: float = 1.0, readout: float = 1.0) -> None:
        super().__init__()
        self.factors = embedding, readout
        self.first = nn.Linear(4, width, bias=False)
        self.hidden = nn.Linear(width, width, bias=False)
        self.last = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        embedding, readout = self.factors
        return readout * self.last(torch.tanh(self.hidden(embedding * self.first(x))))


class Multiplied(Toy):
    """The same net with other factors on first layer and readout, in plain PyTorch."""

    def __init__(self, **factors: float) -> None:
        super().__init__()
        self.factors = factors

    def model(self, width: int) -> nn.Module:
        return Net(width, **self.factors)


@pytest.mark.parametrize("rule", ["sp", "mup"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("SGD", {}), ("SGD", {"momentum": 0.9}), ("AdamW", {"weight_decay": 1.0})],
)
def test_multipliers_are_factors_of_the_forward_pass(
    optimizer: str, options: dict[str, float], rule: Any
) -> None:
    asked: dict[str, Any] = {
        **ONE, "widths": [4, 8], "optimizer": optimizer, "parametrization": rule, **options
    }  # fmt: skip
    folded = t1.sweep(
        Multiplied(), **asked, axes={"readout_multiplier": [3.0], "embedding_multiplier": [0.5]}
    )
    written = t1.sweep(Multiplied(readout=3.0, embedding=0.5), **asked)
    plain = t1.sweep(Multiplied(), **asked)
    for index, trial in enumerate(folded.trials):
        assert trial.losses == pytest.approx(written.trials[index].losses, rel=2e-4)
        assert trial.losses != pytest.approx(plain.trials[index].losses, rel=1e-2)


def test_an_option_as_an_axis_is_that_option_to_the_bit() -> None:
    axes = {"weight_decay": [0.0, 0.5], "beta2": [0.9]}
    swept = t1.sweep(Toy(), **SMALL, optimizer="AdamW", axes=axes)
    for decay in axes["weight_decay"]:
        alone = t1.sweep(Toy(), **SMALL, optimizer="AdamW", weight_decay=decay, betas=(0.9, 0.9))
        of_decay = [t.losses for t in swept.trials if t.axes["weight_decay"] == decay]
        assert of_decay == [trial.losses for trial in alone.trials]
        (combination,) = (c for c in swept.combinations if c.values["weight_decay"] == decay)
        assert combination.optima == alone.optima


def test_initial_values_are_scaled_and_vectors_are_not() -> None:
    class Scaled(Toy):
        def model(self, width: int) -> nn.Module:
            model = super().model(width)
            with torch.no_grad():
                for layer in model.modules():
                    if isinstance(layer, nn.Linear):
                        layer.weight.mul_(0.5)
            return model

    asked: dict[str, Any] = {**SMALL, "parametrization": "sp", "optimizer": "Adam"}
    swept = t1.sweep(Toy(), **asked, axes={"init_scale": [0.5]})
    by_hand = t1.sweep(Scaled(), **asked)
    assert [t.losses for t in swept.trials] == [t.losses for t in by_hand.trials]


def test_the_result_is_that_of_the_best_combination_and_says_so() -> None:
    result = t1.sweep(Toy(), **SMALL, optimizer="AdamW", axes={"weight_decay": [100.0, 0.0]})
    assert result.axes == {"weight_decay": (0.0, 100.0)}
    losses = {c.values["weight_decay"]: c.loss for c in result.combinations}
    best = min(losses, key=losses.__getitem__)
    assert losses[best] < max(losses.values())
    assert result.best_axes == {"weight_decay": best}
    alone = t1.sweep(Toy(), **SMALL, optimizer="AdamW", weight_decay=best)
    assert (result.optima, result.penalties) == (alone.optima, alone.penalties)
    assert (len(result.trials), len(result.judged)) == (24, 12)
    assert f"With weight_decay {best:g}:" in str(result)
    assert SweepResult.from_json(result.to_json()).to_json() == result.to_json()
    assert Trial.from_json(result.trials[0].to_json()).axes == {"weight_decay": 0.0}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlalchemy's pool closes with the process
@pytest.mark.parametrize("where", ["sweep.journal", "sweep.db"])
def test_every_axis_is_part_of_a_trials_identity(tmp_path: Path, where: str) -> None:
    storage = str(tmp_path / where) if "db" not in where else f"sqlite:///{tmp_path / where}"
    asked: dict[str, Any] = {**ONE, "seeds": [0, 1], "storage": storage, "optimizer": "AdamW"}
    first = t1.sweep(Toy(), **asked, axes={"weight_decay": [0.0, 1.0]})
    assert len({t.losses for t in first.trials}) == len(first.trials)
    again = t1.sweep(Toy(), **asked, axes={"weight_decay": [0.0, 1.0, 2.0]})
    assert (again.n_trained, again.n_reused) == (2, 4)
    assert [t for t in again.trials if t.axes["weight_decay"] < 2] == list(first.trials)
    assert t1.sweep(Toy(), **asked, axes={"eps": [0.0, 1.0]}).n_reused == 0


def test_stacks_of_several_combinations_train_as_one_by_one() -> None:
    axes = {"weight_decay": [0.0, 1.0], "beta1": [0.5, 0.9], "readout_multiplier": [1.0, 2.0]}
    serial = t1.sweep(Multiplied(), **ONE, optimizer="AdamW", axes=axes)
    stacked = t1.sweep(Multiplied(), **{**ONE, "engine": "stacked"}, optimizer="AdamW", axes=axes)
    for one, other in zip(serial.trials, stacked.trials, strict=True):
        assert one.spec == other.spec
        assert one.losses == pytest.approx(other.losses, rel=1e-4)


def test_a_callable_parametrization_gets_the_axes_by_keyword() -> None:
    def ours(model: nn.Module, width: int, lr: float, damping: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=lr / damping)

    result = t1.sweep(Toy(), **SMALL, parametrization=ours, axes={"damping": [1.0, 4.0]})
    fast, slow = ([t.losses for t in result.trials if t.axes["damping"] == d] for d in (1.0, 4.0))
    assert fast[0:2] == slow[2:4]  # rate 2^-8 at 1 is 2^-6 at 4, seeds 0 and 1
    with pytest.raises(InputError, match=r"axes gain: the parametrization takes none"):
        t1.sweep(Toy(), **SMALL, parametrization=ours, axes={"gain": [1.0]})


class Tied(Toy):
    def model(self, width: int) -> nn.Module:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(7, width)

            def forward(self, tokens: Tensor) -> Tensor:
                return nn.functional.linear(self.embedding(tokens), self.embedding.weight)

        return Model()

    def batches(self, seed: int) -> Any:
        while True:
            yield torch.arange(7), torch.arange(7)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"speed": [1.0]}, "axis speed: neither a number among the optimizer's options"),
        ({"widths": [1.0]}, "axis widths: it has an argument of its own"),
        ({"lr": [1.0]}, "axis lr: it has an argument of its own"),
        ({"weight_decay": []}, r"weight_decay=\[\]: need at least one"),
        ({"weight_decay": [float("nan")]}, "weight_decay=nan: need finite numbers"),
        ({"weight_decay": ["much"]}, "weight_decay='much': need finite numbers"),
        ({"init_scale": [0.0]}, "init_scale=0.0: a factor must be > 0"),
        (["weight_decay"], "pass a mapping"),
    ],
)
def test_axes_that_are_none(axes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        t1.sweep(Toy(), **SMALL, axes=axes)


def test_a_multiplier_of_a_tied_readout_is_refused() -> None:
    with pytest.raises(InputError, match="axis readout_multiplier: this model has no weights"):
        t1.sweep(Tied(), **SMALL, axes={"readout_multiplier": [1.0, 2.0]})


@pytest.mark.float32
def test_axes_on_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = (
        "sweep digits --widths 8,16 --lrs 2^-8,2^-6,2^-4 --seeds 0 --steps 3 --engine serial "
        f"--axis weight_decay=0,0.1 --axis beta2=0.9 --storage {tmp_path / 'j'} --output {output}"
    )
    ended = CliRunner().invoke(app, command.split())
    assert ended.exit_code == 0, ended.output
    assert "by axis" in ended.output
    assert SweepResult.from_json(output).axes == {"beta2": (0.9,), "weight_decay": (0.0, 0.1)}
    for wrong, message in (
        ("weight_decay", "write name=value,value"),
        ("weight_decay=0,x", "write name=value,value"),
    ):
        ended = CliRunner().invoke(app, ["sweep", "digits", "--axis", wrong])
        assert isinstance(ended.exception, InputError)
        assert message in str(ended.exception)


class Attention(nn.Module):
    """One head that grows with width; q, k and v have weights of their own."""

    def __init__(self, width: int, factor: float, *, fused: bool = False, kernel: bool) -> None:
        super().__init__()
        self.factor, self.kernel = factor, kernel
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 1)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.fused = nn.Linear(width, 3 * width) if fused else None

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))[None]
        q, k, v = (layer(h) for layer in self.layers)
        if self.fused is not None:
            q, k, v = self.fused(h).chunk(3, dim=-1)
        scale = self.factor / q.shape[-1]
        if self.kernel:
            return self.last(nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)[0])
        logits = (q @ k.mT * scale).masked_fill(torch.zeros(1, dtype=torch.bool), -1e9)
        return self.last((torch.softmax(logits, -1) @ v)[0])


class Attentive(Toy):
    def __init__(self, factor: float = 1.0, **form: bool) -> None:
        super().__init__()
        self.factor, self.form = factor, form

    def model(self, width: int) -> nn.Module:
        return Attention(width, self.factor, **self.form)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_factor_on_attention_logits_is_that_factor_at_every_width(
    optimizer: str, kernel: bool
) -> None:
    asked: dict[str, Any] = {**ONE, "widths": [4, 8], "optimizer": optimizer, "steps": 10}
    asked["lrs"] = [2.0**-3] if optimizer == "SGD" else [2.0**-6]
    axes = {"attention_multiplier": [8.0]}
    for rule in ("mup", "sp"):
        folded = t1.sweep(Attentive(kernel=kernel), **asked, parametrization=rule, axes=axes)
        written = t1.sweep(Attentive(8.0, kernel=kernel), **asked, parametrization=rule)
        plain = t1.sweep(Attentive(kernel=kernel), **asked, parametrization=rule)
        for one, other, without in zip(folded.trials, written.trials, plain.trials, strict=True):
            assert one.losses == pytest.approx(other.losses, rel=1e-4)
            assert one.losses != pytest.approx(without.losses, rel=1e-3)


def test_a_factor_on_attention_logits_that_plain_torch_has_no_place_for_is_refused() -> None:
    axes = {"attention_multiplier": [1.0, 2.0]}
    with pytest.raises(InputError, match="neither the queries nor the keys of the model are made"):
        t1.sweep(Attentive(fused=True, kernel=True), **SMALL, axes=axes)
    with pytest.raises(InputError, match="this model has no attention logits"):
        t1.sweep(Toy(), **SMALL, axes=axes)
