import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thetaone.errors import TaskError
from thetaone.records import Task, check_loss
from thetaone.tasks import lm, load_task

WHOLE = """
import torch
def model(width): return torch.nn.Linear(3, width)
def batches(seed):
    while True: yield torch.full((2, 3), float(seed))
def loss(model, batch): return model(batch).square().mean()
"""


class Mine:
    def __init__(self, size: int = 2) -> None:
        self.size = size

    def model(self, width: int) -> nn.Module:
        return nn.Linear(self.size, width)

    def batches(self, seed: int) -> Iterator[Tensor]:
        yield torch.full((1, self.size), float(seed))

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).mean()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(WHOLE)
    return path


@pytest.mark.parametrize("ref", ["lm", "thetaone.tasks.lm", lm, Path(lm.__file__)])
def test_one_task_by_every_kind_of_reference(ref: Any) -> None:
    task = load_task(ref)
    assert isinstance(task, Task)
    assert task.name == "lm"
    assert task.evaluate is not None
    assert task.defaults["widths"] == (32, 64, 128)
    assert sum(p.numel() for p in task.model(16).parameters()) > 0


def test_a_file_and_an_object(whole: Path) -> None:
    task = load_task(str(whole))
    assert (task.name, task.reference, task.evaluate) == ("mine", str(whole), None)
    assert task.loss(task.model(4), next(task.batches(1))).ndim == 0
    assert load_task(Mine()).name == "Mine"
    assert load_task(task) is task


def test_a_task_with_a_reference_pickles_by_it(whole: Path) -> None:
    task = load_task(whole)
    again = pickle.loads(pickle.dumps(task))
    assert again.reference == task.reference
    assert again.fingerprint == task.fingerprint


def test_the_fingerprint_follows_source_and_state(whole: Path) -> None:
    before = load_task(whole).fingerprint
    assert load_task(whole).fingerprint == before
    whole.write_text(WHOLE + "# another\n")
    assert load_task(whole).fingerprint != before
    assert load_task(Mine(2)).fingerprint == load_task(Mine(2)).fingerprint
    assert load_task(Mine(2)).fingerprint != load_task(Mine(3)).fingerprint


@pytest.mark.parametrize("missing", ["model", "batches", "loss"])
def test_a_missing_part_is_named_with_what_to_write(missing: str, whole: Path) -> None:
    whole.write_text(WHOLE.replace(f"def {missing}(", f"def other_{missing}("))
    with pytest.raises(TaskError, match=rf"lacks a function '{missing}'; write: def {missing}\("):
        load_task(whole)


def test_a_part_that_is_not_a_function() -> None:
    broken = SimpleNamespace(model=3, batches=iter, loss=max)
    with pytest.raises(TaskError, match="has int instead of a function 'model'"):
        load_task(broken)


def test_unknown_names_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"no task 'llm'.*digits, lm"):
        load_task("llm")
    with pytest.raises(TaskError, match=r"existing \.py file"):
        load_task(tmp_path / "absent.py")
    (tmp_path / "broken.py").write_text("def model(:")
    with pytest.raises(TaskError, match=r"cannot load the task at .*broken\.py"):
        load_task(tmp_path / "broken.py")


def test_defaults_that_mean_nothing() -> None:
    task = Mine()
    vars(task)["defaults"] = {"lr": 1}
    with pytest.raises(TaskError, match="keys among lrs, seeds, steps, widths"):
        load_task(task)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "returned a float"),
        (torch.ones(3, requires_grad=True), r"shape \(3,\).*\.mean\(\)"),
        (torch.ones((), dtype=torch.int64), "dtype torch.int64"),
        (torch.ones(()), "does not depend on the model's parameters"),
    ],
)
def test_what_is_not_a_loss(value: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check_loss(value, where="mine")
