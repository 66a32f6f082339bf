"""A stored trial is served to the training that made it, and to no other."""

import functools
import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import Toy

import thetaone as t1
from thetaone._contents import contents_digest
from thetaone.errors import TaskError

SMALL: dict[str, Any] = {
    "widths": [4], "lrs": [2**-8, 2**-6, 2**-4], "seeds": [0, 1], "steps": 4, "engine": "serial",
}  # fmt: skip


def decayed(decay: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda model, width, lr: torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)


def recipe(model: nn.Module, width: int, lr: float, *, decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)


def hooked(scale: float) -> Callable[..., torch.optim.Optimizer]:
    def make(model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        for p in model.parameters():
            p.register_hook(lambda gradient: gradient * scale)
        return torch.optim.SGD(model.parameters(), lr=lr)

    return make


@pytest.mark.parametrize(
    "make",
    [decayed, lambda decay: functools.partial(recipe, decay=decay), hooked],
    ids=["closure", "partial", "hook"],
)
def test_another_recipe_trains_anew_and_the_same_one_does_not(
    make: Callable[[float], Any], tmp_path: Path
) -> None:
    journal = tmp_path / "s.journal"
    first = t1.sweep(Toy(), **SMALL, parametrization=make(0.5), storage=journal)
    other = t1.sweep(Toy(), **SMALL, parametrization=make(5.0), storage=journal)
    again = t1.sweep(Toy(), **SMALL, parametrization=make(0.5), storage=journal)
    assert (first.n_trained, other.n_trained, again.n_trained) == (6, 6, 0)
    assert [t.losses for t in again.trials] == [t.losses for t in first.trials]


FACTOR = 1.0


class OfAGlobal(Toy):
    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return FACTOR * super().loss(model, batch)


def test_a_global_of_the_task_is_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = tmp_path / "s.journal"
    t1.sweep(OfAGlobal(), **SMALL, storage=journal)
    assert t1.sweep(OfAGlobal(), **SMALL, storage=journal).n_trained == 0
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    assert t1.sweep(OfAGlobal(), **SMALL, storage=journal).n_trained == 6


def typed_in_a_notebook(activation: str) -> Any:
    """A task whose source text exists nowhere."""
    cell = ModuleType("cell")
    code = f"""
    import torch
    from torch import nn
    class Base:
        def model(self, width):
            return nn.Sequential(nn.Linear(4, width), nn.{activation}(), nn.Linear(width, 1))
    class Task(Base):
        def batches(self, seed):
            g = torch.Generator().manual_seed(seed)
            while True: yield torch.randn(8, 4, generator=g)
        def loss(self, model, batch): return (model(batch) - 1).square().mean()
    """
    exec(textwrap.dedent(code), vars(cell))
    return cell.Task()


def test_a_base_class_typed_in_a_notebook_is_part_of_the_task(tmp_path: Path) -> None:
    journal = tmp_path / "s.journal"
    assert t1.sweep(typed_in_a_notebook("ReLU"), **SMALL, storage=journal).n_trained == 6
    assert t1.sweep(typed_in_a_notebook("ReLU"), **SMALL, storage=journal).n_trained == 0
    assert t1.sweep(typed_in_a_notebook("Tanh"), **SMALL, storage=journal).n_trained == 6


class OfTheEnvironment(Toy):
    """Its activation stands in no code, weight or option."""

    def model(self, width: int) -> nn.Module:
        activation = getattr(nn, os.environ["THETAONE_TEST_ACTIVATION"])()
        return nn.Sequential(nn.Linear(4, width), activation, nn.Linear(width, 1))


def test_a_stored_trial_that_began_at_another_loss_is_named_and_trained_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THETAONE_TEST_ACTIVATION", "ReLU")
    t1.sweep(OfTheEnvironment(), **SMALL, storage=tmp_path / "s.journal")
    monkeypatch.setenv("THETAONE_TEST_ACTIVATION", "Tanh")
    again = t1.sweep(OfTheEnvironment(), **SMALL, storage=tmp_path / "s.journal")
    alone = t1.sweep(OfTheEnvironment(), **SMALL)
    assert again.n_trained == 6
    assert [t.losses for t in again.trials] == [t.losses for t in alone.trials]
    said = r"trial \d of .*s\.journal \(width 4, lr .*\) is trained again: the loss of its first"
    assert re.match(said, again.notes[0])


FILE = """
import torch, helper
def model(width): return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))
def batches(seed):
    g = torch.Generator().manual_seed(seed)
    while True: yield torch.randn(8, 4, generator=g)
def loss(model, batch): return helper.scaled(model(batch))
"""


def test_a_helper_beside_the_task_is_read_anew_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "mine.py").write_text(FILE)
    losses = []
    for factor in ("1.0", "9.0"):
        helper = tmp_path / "helper.py"
        helper.write_text(f"def scaled(y): return ({factor} * y - 1).square().mean()\n")
        result = t1.sweep(tmp_path / "mine.py", **SMALL, storage=tmp_path / "s.journal")
        losses.append(result.trials[0].losses[0])
        assert result.n_trained == 6
    assert losses[0] != losses[1]
    assert not list(tmp_path.rglob("__pycache__"))


def test_fresh_trains_anew_and_is_served_afterwards(tmp_path: Path) -> None:
    journal = tmp_path / "s.journal"
    events: list[Any] = []
    t1.sweep(Toy(), **SMALL, storage=journal)
    assert t1.sweep(Toy(), **SMALL, storage=journal, fresh=True).n_trained == 6
    again = t1.sweep(Toy(), **SMALL, storage=journal, progress=events.append)
    assert again.n_trained == 0
    assert "6 trials, 6 trials of" in events[0].message
    assert "reused" in events[0].message


class Unseeded(Toy):
    """Draws that nothing seeds: of weights, batches or losses."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part

    def _noise(self, part: str) -> float:
        return float(np.random.default_rng().standard_normal()) if self.part == part else 0.0

    def model(self, width: int) -> nn.Module:
        net = super().model(width)
        with torch.no_grad():
            next(net.parameters()).add_(self._noise("model"))
        return net

    def batches(self, seed: int) -> Iterator[Any]:
        for x, y in super().batches(seed):
            yield x + self._noise("batches"), y

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return super().loss(model, batch) * (1 + abs(self._noise("loss")))


@pytest.mark.parametrize("part", ["model", "batches", "loss"])
def test_a_task_that_does_not_repeat_is_refused(part: str) -> None:
    with pytest.raises(TaskError, match="does not repeat: built twice at width 4, seed 0"):
        t1.sweep(Unseeded(part), **SMALL)


class LateUnseeded(Toy):
    """Draws that nothing seeds, from the fifth batch on."""

    def batches(self, seed: int) -> Iterator[Any]:
        for step, (x, y) in enumerate(super().batches(seed)):
            yield x + (float(np.random.default_rng().standard_normal()) if step > 4 else 0.0), y


@pytest.mark.parametrize("engine", ["serial", "stacked"])
def test_batches_that_differ_later_are_seen_when_the_second_trial_ends(engine: str) -> None:
    call = {**SMALL, "steps": 12, "engine": engine, "n_processes": 1}
    call["lrs"] = [2.0**power for power in range(-12, -4)]
    if engine == "stacked":  # members of a stack share their batches: two stacks tell
        call["lrs"] = [2.0 ** (power / 8) for power in range(-80, -32)]
    with pytest.raises(TaskError, match=r"does not repeat: batch 8 of seed \d at width 4 differs"):
        t1.sweep(LateUnseeded(), **call)


class OfGlobals(Toy):
    """Draws from the global generators of torch, NumPy and Python."""

    def model(self, width: int) -> nn.Module:
        net = super().model(width)
        with torch.no_grad():
            next(net.parameters()).add_(np.random.randn() + random.random())  # noqa: NPY002
        return net

    def batches(self, seed: int) -> Iterator[Any]:
        for x, y in super().batches(seed):
            noise = np.random.randn() + random.random()  # noqa: NPY002
            yield x + torch.randn(()) + noise, y


def test_numpys_and_pythons_global_generators_are_seeded_and_put_back() -> None:
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.randn()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first, second = (t1.sweep(OfGlobals(), **SMALL) for _ in range(2))
    assert [t.losses for t in first.trials] == [t.losses for t in second.trials]
    assert np.random.randn() == expected  # noqa: NPY002


class Breaking(Toy):
    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part

    def model(self, width: int) -> nn.Module:
        return {}["model"] if self.part == "model" else super().model(width)

    def batches(self, seed: int) -> Iterator[Any]:
        if self.part == "batches":
            raise SystemExit(3)
        return super().batches(seed)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if self.part == "loss":
            raise ZeroDivisionError("by zero")
        return super().loss(model, batch)


@pytest.mark.parametrize(
    ("part", "kind"), [("model", "KeyError"), ("batches", "SystemExit"), ("loss", "ZeroDivision")]
)
def test_what_the_users_code_raises_names_part_and_line(part: str, kind: str) -> None:
    named = rf"{part} of task Breaking at width 4, seed 0 raised {kind}.*test_identity.py:\d+"
    with pytest.raises(TaskError, match=named):
        t1.sweep(Breaking(part), **SMALL, parametrization="sp")


class Odd(BaseException):
    def __str__(self) -> str:
        raise ValueError("no words")


class Escaping(Toy):
    """Raises what is no ``Exception``, from a step on that no check sees."""

    def __init__(self, error: BaseException, step: int) -> None:
        super().__init__()
        self.error, self.step = error, step

    def batches(self, seed: int) -> Iterator[Any]:
        for step, batch in enumerate(super().batches(seed)):
            if step == self.step and seed == 1:
                raise self.error
            yield batch


@pytest.mark.parametrize("error", [Odd(), SystemExit(0), GeneratorExit()])
def test_what_is_no_exception_does_not_escape(error: BaseException, tmp_path: Path) -> None:
    journal = tmp_path / "s.journal"
    alone = {**SMALL, "seeds": [1]}
    with pytest.raises(TaskError, match=rf"raised {type(error).__name__}: "):
        t1.sweep(Escaping(error, step=0), **alone, parametrization="sp", storage=journal)
    result = t1.sweep(Escaping(error, step=3), **SMALL, parametrization="sp")
    assert [t.status for t in result.trials] == ["finished", "failed"] * 3


def test_an_interrupt_is_no_fault_of_the_task() -> None:
    with pytest.raises(
        KeyboardInterrupt, match=r"^by hand\n3 of 6 trials were done; none is kept$"
    ):
        t1.sweep(Escaping(KeyboardInterrupt("by hand"), step=3), **SMALL, parametrization="sp")


@pytest.mark.float32
def test_sharing_and_cycles_do_not_change_a_digest() -> None:
    shared = (1, 2)
    assert contents_digest([shared, shared]) == contents_digest([(1, 2), (1, int("2"))])
    loop: list[Any] = [1]
    loop.append(loop)
    other: list[Any] = [1]
    other.append(other)
    assert contents_digest(loop) == contents_digest(other) != contents_digest([1, [1]])
    assert contents_digest({1, 2, 3}) == contents_digest({3, 2, 1})
    assert contents_digest(torch.ones(2)) != contents_digest(torch.ones(2, dtype=torch.float64))


def test_a_first_sweep_leaves_every_global_generator_as_it_was(tmp_path: Path) -> None:
    """In a fresh process: what is imported on the way may draw as well."""
    script = f"""
import random, numpy as np, torch
random.seed(1), np.random.seed(1), torch.manual_seed(1)
before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
import thetaone as t1
for rule in ("sp", "mup"):
    result = t1.sweep("lm", widths=[16, 32], lrs=[2**-7, 2**-6, 2**-5], seeds=[0], steps=1,
                      parametrization=rule, engine="serial", storage={str(tmp_path / "j")!r})
    str(result), result._repr_html_()
after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
print([a == b for a, b in zip(before, after)])
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines()[-1:] == ["[True, True, True]"], run.stderr


@pytest.mark.parametrize(
    "form",
    [
        lambda x: torch.complex(x, 2 * x).conj(),
        lambda x: torch.complex(x, x).conj().imag,
        lambda x: x.to_sparse(),
        pytest.param(
            lambda x: x.to_sparse_csr(),
            marks=pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
        ),
        lambda x: torch.nested.nested_tensor([x[:1], x[1:]], layout=torch.jagged),
    ],
)
def test_tensors_of_every_form_are_known_by_their_values(form) -> None:
    x = torch.arange(1.0, 7.0).reshape(3, 2)
    assert contents_digest(form(x)) == contents_digest(form(x.clone()))
    assert contents_digest(form(x)) != contents_digest(form(x + 1))
