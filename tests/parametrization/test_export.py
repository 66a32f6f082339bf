"""What travels: an exported model computes the same, read again where thetaone does not exist."""

import io
import pickletools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import DeepModel, TiedModel, mlp
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import thetaone as t1
from thetaone.errors import InputError
from thetaone.parametrization import SpectralMonitor
from thetaone.parametrization._scaling import set_output_factor


class NormedTied(TiedModel):
    """A tied readout behind a norm, whose gain can hold the readout's factor."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(self.norm(torch.relu(self.hidden(self.embedding(tokens)))))


def gpt2(width: int) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=width, n_head=2, n_layer=1, n_positions=16, vocab_size=50, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


TOKENS, NUMBERS = torch.arange(12).reshape(2, 6), torch.randn(3, 32)
MODELS: dict[str, tuple[Callable[[int], nn.Module], Tensor]] = {
    "perceptron": (mlp, NUMBERS),
    "residual": (lambda width: DeepModel(width, width // 16), NUMBERS),
    "weight norm": (lambda width: nn.Sequential(weight_norm(nn.Linear(32, width))), NUMBERS),
    "GPT-2": (gpt2, TOKENS),
}


def logits(output: Any) -> Tensor:
    return (output if isinstance(output, Tensor) else output.logits).detach()


def trained(make: Callable[[int], nn.Module], inputs: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = make(64)
    optimizer = t1.parametrize(model, base=make(32), optimizer=torch.optim.Adam, lr=2**-7)
    for _ in range(2):
        optimizer.zero_grad()
        out = model(inputs)
        (out if isinstance(out, Tensor) else out.logits).square().mean().backward()
        optimizer.step()
    return model


def loads_no_thetaone(data: bytes) -> bool:
    names = [arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)]
    return not any(name.startswith("thetaone") for name in names)


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_computes_the_same_and_loads_into_its_own_class(name: str) -> None:
    make, inputs = MODELS[name]
    model = trained(make, inputs)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    plain = t1.export(model)
    expected = logits(model(inputs))
    torch.testing.assert_close(logits(plain(inputs)), expected, rtol=1e-5, atol=1e-6)
    fresh = make(64)
    fresh.load_state_dict(plain.state_dict())
    torch.testing.assert_close(logits(fresh(inputs)), expected, rtol=1e-5, atol=1e-6)
    assert type(plain) is type(make(32))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


READ = """
import sys
sys.modules["thetaone"] = None  # importing it fails from here on
import torch
folder = sys.argv[1]
from transformers import GPT2LMHeadModel
model = GPT2LMHeadModel.from_pretrained(folder)
expected = torch.load(folder + "/expected.pt")
with torch.no_grad():
    logits = model.eval()(expected["tokens"]).logits
torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=1e-6)
print("equal")
"""


def test_save_pretrained_travels_to_a_process_without_thetaone(tmp_path: Path) -> None:
    plain: Any = t1.export(trained(gpt2, TOKENS)).eval()
    plain.save_pretrained(tmp_path)
    torch.save({"tokens": TOKENS, "logits": logits(plain(TOKENS))}, tmp_path / "expected.pt")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout.strip() == "equal", run.stderr[-500:]


def test_a_watched_and_compiled_model_is_unwrapped() -> None:
    model = trained(mlp, NUMBERS)
    optimizer = torch.optim.SGD(model.parameters())
    with SpectralMonitor(model, optimizer):
        plain = t1.export(torch.compile(model, backend="eager"))  # pyright: ignore[reportArgumentType]
    assert type(plain) is nn.Sequential
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in plain.modules())
    buffer = io.BytesIO()
    torch.save(plain, buffer, _use_new_zipfile_serialization=False)
    assert loads_no_thetaone(buffer.getvalue())
    torch.testing.assert_close(plain(NUMBERS), model(NUMBERS))


def test_a_rematerialized_model_is_written_plain_again() -> None:
    model = trained(lambda width: DeepModel(width, 4), NUMBERS)
    expected = logits(model(NUMBERS))
    remade = t1.rematerialize(model, sample=NUMBERS, budget="100 %")
    plain = t1.export(remade)
    assert type(plain) is DeepModel
    assert all(type(m).__module__.split(".")[0] != "thetaone" for m in plain.modules())
    assert "_rematerialization" not in {key for m in plain.modules() for key in vars(m)}
    torch.testing.assert_close(plain(NUMBERS), expected)


def test_torch_export_takes_what_was_exported() -> None:
    model = t1.export(trained(mlp, NUMBERS)).eval()
    program = torch.export.export(model, (NUMBERS,))
    torch.testing.assert_close(program.module()(NUMBERS), model(NUMBERS))


def test_what_no_weight_can_hold_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    set_output_factor(model[1], 0.5)
    with pytest.raises(InputError, match=r"1 ends a residual branch in no linear parameter"):
        t1.export(model)
    with pytest.raises(InputError, match=r"weight is on the meta device: load a whole state_dict"):
        t1.export(nn.Linear(2, 2, device="meta"))
