"""What a prescription must survive: everything that is usually done to a model around training."""

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_tasks import TiedModel, mlp
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import thetaone as t1


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 32, generator=generator), torch.arange(16) % 10


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[float]:
    losses: list[float] = []
    for step in range(steps):
        x, y = batch(step)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_deepcopy_keeps_the_tied_factor_and_can_be_parametrized() -> None:
    model, base = TiedModel(64), TiedModel(16)
    optimizer = t1.parametrize(model, base=base, lr=0.1)
    twin = copy.deepcopy(model)
    tokens = torch.arange(50)
    assert torch.equal(twin(tokens), model(tokens))
    again = t1.parametrize(twin, base=base, lr=0.1)
    assert rates(again) == rates(optimizer)
    assert torch.equal(twin(tokens), model(tokens))


def test_averaged_model_follows_the_average() -> None:
    model, base = mlp(64), mlp(16)
    optimizer = t1.parametrize(model, base=base, lr=0.01)
    averaged = AveragedModel(model)
    weights = [model.get_parameter("2.weight").detach().clone()]
    averaged.update_parameters(model)
    train(model, optimizer)
    averaged.update_parameters(model)
    weights.append(model.get_parameter("2.weight").detach().clone())
    mean = torch.stack(weights).mean(0)
    assert torch.allclose(averaged.module.get_parameter("2.weight"), mean, atol=1e-7)


def test_meta_then_to_empty_gives_the_same_rates_and_training() -> None:
    base = mlp(16)
    torch.manual_seed(0)
    plain = mlp(64)
    expected = t1.parametrize(plain, base=base, lr=0.01)
    with torch.device("meta"):
        model = mlp(64)
    prescription = t1.prescribe(model, base=base)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimizer = t1.parametrize(model, base=prescription, lr=0.01)
    assert rates(optimizer) == rates(expected)
    assert train(model, optimizer) == train(plain, expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_to_the_graph_of_the_plain_model(backend: str) -> None:
    graphs: list[list[str]] = []

    def compiled(model: nn.Module) -> Any:
        def record(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
            graphs.append([node.name for node in graph.graph.nodes])
            return torch._dynamo.lookup_backend(backend)(graph, inputs)

        torch._dynamo.reset()
        return torch.compile(model, fullgraph=True, backend=record)

    plain, model = mlp(64), mlp(64)
    base = mlp(16)
    optimizer = t1.parametrize(model, base=base, lr=0.01)
    x, _ = batch(0)
    compiled(plain)(x)
    wrapped = compiled(model)
    wrapped(x)
    assert graphs[0] == graphs[1]
    twin = copy.deepcopy(model)
    other = t1.parametrize(twin, base=base, lr=0.01)
    assert train(wrapped, optimizer) == train(twin, other)


def test_a_compiled_tied_model_has_one_graph() -> None:
    model = TiedModel(64)
    t1.parametrize(model, base=TiedModel(16), lr=0.01)
    tokens = torch.arange(50)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(tokens), model(tokens))


def test_gradient_accumulation_is_one_large_batch() -> None:
    base, model = mlp(16), mlp(64)
    t1.parametrize(model, base=base, lr=0.1)
    twin = copy.deepcopy(model)
    x, y = batch(0)
    one = t1.parametrize(model, base=base, optimizer="SGD", lr=0.1)
    two = t1.parametrize(twin, base=base, optimizer="SGD", lr=0.1)
    F.cross_entropy(model(x), y).backward()
    for part in (slice(0, 8), slice(8, 16)):
        (F.cross_entropy(twin(x[part]), y[part]) / 2).backward()
    one.step()
    two.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.float32
def test_autocast_trains_and_keeps_weights_in_single_precision() -> None:
    model = TiedModel(64)
    optimizer = t1.parametrize(model, base=TiedModel(16), lr=0.01)
    tokens = torch.arange(50)
    losses: list[float] = []
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(tokens).float(), (tokens * 7 + 3) % 50)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())


RESUME = """
import sys, torch
sys.path[:0] = [{tests!r}, {src!r}]
torch.set_num_threads(1)
import thetaone as t1
from small_tasks import mlp
from test_survival import train
saved = torch.load({path!r}, weights_only=False)
model = mlp(64)
base = mlp(16)
optimizer = t1.parametrize(model, base=saved["prescription"], lr=0.01, rescale=False)
model.load_state_dict(saved["model"]); optimizer.load_state_dict(saved["optimizer"])
print(train(model, optimizer))
print(train(saved["whole"], t1.parametrize(saved["whole"], base=saved["prescription"], lr=0.01,
    rescale=False), 1))
"""


@pytest.mark.float32
def test_a_fresh_process_continues_bit_for_bit(tmp_path: Path) -> None:
    model = mlp(64)
    prescription = t1.prescribe(model, base=mlp(16))
    optimizer = t1.parametrize(model, base=prescription, lr=0.01)
    train(model, optimizer)
    path = tmp_path / "checkpoint.pt"
    parts: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "whole": model,
        "prescription": prescription,
    }
    torch.save(parts, path)
    first = copy.deepcopy(model)
    expected = [
        train(model, optimizer),
        train(first, t1.parametrize(first, base=prescription, lr=0.01, rescale=False), 1),
    ]
    here = Path(__file__).parent
    code = RESUME.format(tests=str(here), src=str(here.parents[1] / "src"), path=str(path))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().splitlines() == [str(losses) for losses in expected]


def test_the_whole_model_is_saved_with_its_factor() -> None:
    model = TiedModel(64)
    t1.parametrize(model, base=TiedModel(16), lr=0.01)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    tokens = torch.arange(50)
    assert torch.equal(torch.load(buffer, weights_only=False)(tokens), model(tokens))
