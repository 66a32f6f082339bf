"""Compiled models and blocks, before and after; function transforms and tracers."""

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import Unsupported

from tests.rematerialization.models import looping
from tests.rematerialization.test_executor import backward, batch, state
from thetaone.errors import ProfileError
from thetaone.rematerialization import rematerialize


def compiled_blocks(model: Any) -> Any:
    for block in model.blocks:
        block.compile(backend="eager")
    return model


def full_graphs(model: Any) -> Any:
    for block in model.blocks:
        block.compile(backend="eager", fullgraph=True)
    return model


def compiled_whole(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def rematerialized(model: Any) -> Any:
    return rematerialize(model, sample=batch(), budget=0.6)


ORDERS: dict[str, Callable[[Any], Any]] = {
    "blocks before": lambda model: rematerialized(compiled_blocks(model)),
    "blocks after": lambda model: compiled_blocks(rematerialized(model)),
    "full graphs before": lambda model: rematerialized(full_graphs(model)),
    "full graphs after": lambda model: full_graphs(rematerialized(model)),
    "model after": lambda model: compiled_whole(rematerialized(model)),
    "model before": lambda model: rematerialized(compiled_whole(model)),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ORDERS)
def test_a_compiled_model_trains_bitwise_and_compiles_once(name: str) -> None:
    torch._dynamo.reset()
    plain = looping(6, dropout=0.1)
    ours = ORDERS[name](copy.deepcopy(plain))
    for _ in range(3):
        for a, b in zip(
            state(plain, backward, batch()), state(ours, backward, batch()), strict=True
        ):
            assert torch.equal(a, b)
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    backward(ours, batch())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled
    torch._dynamo.reset()


def test_a_model_that_was_compiled_as_one_graph_is_refused() -> None:
    model = torch.compile(looping(4), backend="eager", fullgraph=True)
    with pytest.raises(
        ProfileError, match=r"fullgraph=True.* or compile its blocks, block\.compile"
    ):
        rematerialized(model)


def test_compiling_as_one_graph_afterwards_says_what_to_do() -> None:
    torch._dynamo.reset()
    model = torch.compile(rematerialized(looping(4)), backend="eager", fullgraph=True)
    with pytest.raises(Unsupported, match=r"thetaone runs the blocks .* compile"):
        model(batch())
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("order", ["before", "after"])
def test_blocks_of_inductor_train_as_without_a_plan(order: str, *, full: bool) -> None:
    def compiled(model: Any) -> Any:
        for block in model.blocks:
            block.compile(fullgraph=full)
        return model

    torch._dynamo.reset()
    plain = looping(6)
    ours = copy.deepcopy(plain)
    first, second = (compiled, rematerialized)[:: 1 if order == "before" else -1]
    compiled(plain)
    second(first(ours))
    for _ in range(2):
        for a, b in zip(
            state(plain, backward, batch()), state(ours, backward, batch()), strict=True
        ):
            assert torch.equal(a, b)
    torch._dynamo.reset()


def per_example(model: nn.Module, x: torch.Tensor) -> Any:
    def loss(parameters: Any, row: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, (row[None],)).square().sum()

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return list(torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x).values())


def jacobian(model: nn.Module, x: torch.Tensor) -> Any:
    return [torch.func.jacrev(lambda row: model(row))(x[:1])]


def traced(model: nn.Module, x: torch.Tensor) -> Any:
    return [torch.jit.trace(model, (x,), check_trace=False)(x).detach()]  # pyright: ignore


def exported(model: nn.Module, x: torch.Tensor) -> Any:
    return [torch.export.export(model, (x,), strict=False).module()(x).detach()]


TRANSFORMS = {
    "per example": per_example, "jacobian": jacobian, "jit.trace": traced, "export": exported,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*_register_pytree_node")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_or_tracer_runs_the_blocks_as_written_and_says_so(name: str) -> None:
    plain = looping(4)
    ours = rematerialized(copy.deepcopy(plain))
    expected = TRANSFORMS[name](plain, batch())
    with pytest.warns(RuntimeWarning, match="its blocks run as written, nothing is recomputed"):
        values = TRANSFORMS[name](ours, batch())
    assert all(map(torch.equal, expected, values))


def test_parameters_of_a_functional_call_are_those_of_the_forward() -> None:
    """Inside the call the model has other parameters; when the backward comes they are gone."""
    plain = looping(6)
    ours = rematerialized(copy.deepcopy(plain))
    gradients: list[Any] = []
    for model in (plain, ours):
        other = {n: (2 * p).detach().requires_grad_() for n, p in model.named_parameters()}
        torch.func.functional_call(model, other, (batch(),)).square().mean().backward()
        gradients.append([one.grad for one in other.values()])
    assert all(map(torch.equal, *gradients))
