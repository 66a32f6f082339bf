"""Three first hours in an empty folder, with what the pages print and nothing else."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import thetaone as t1
from thetaone.errors import BudgetTooSmallError

pytestmark = pytest.mark.slow

SMALL = "--widths 16,32 --target 64 --lrs 2^-9,2^-8,2^-7 --steps 10"


def typed(folder: Path, line: str, *, code: int = 0) -> str:
    """What a command prints; it ends with the code."""
    done = subprocess.run(
        [sys.executable, "-m", *line.split()], cwd=folder, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def own_text(folder: Path, file: str) -> None:
    """The one change that a file of text asks for, as its comment says it."""
    (folder / "input.txt").write_text("the quick brown fox jumps over the lazy dog. " * 400)
    task = folder / file
    text = task.read_text(encoding="utf-8")
    (advised,) = re.findall(r"^TEXT: Path \| None = None  # CHANGE: (Path\(.*\)), your", text, re.M)
    task.write_text(re.sub(r"^TEXT.*$", f"TEXT = {advised}", text, flags=re.M), encoding="utf-8")


def test_a_gpt_on_own_text_from_init_to_a_trained_target(tmp_path: Path) -> None:
    assert "thetaone transfer gpt.py" in typed(tmp_path, "thetaone init transformer gpt.py")
    own_text(tmp_path, "gpt.py")
    wrong = typed(tmp_path, "thetaone check gpt.py --widths 16,24", code=2)
    assert re.search(r"gpt.py:\d+, in model: ValueError: width=24: need a multiple of", wrong)
    assert "Coordinate check" in typed(tmp_path, "thetaone check gpt.py --widths 32,64,128")
    told = typed(tmp_path, f"thetaone transfer gpt.py {SMALL} --report out --memory 1MiB", code=2)
    enough = re.search(r"--memory (\S+)\)", told)
    assert enough is not None, told
    command = f"thetaone transfer gpt.py {SMALL} --report out --memory {enough[1]}"
    assert "train your model as it is, at rate" in typed(tmp_path, command)
    out = tmp_path / "out"
    recipe = t1.Recipe.load(out / "recipe.json")
    assert recipe.plain  # the target is plain PyTorch: one rate, no factor
    typed(tmp_path, "thetaone train out/recipe.json")  # goes on from its last step
    first = load_file(out / "model.safetensors")
    typed(tmp_path, "thetaone train out/recipe.json --report again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert "index.html" in typed(tmp_path, "thetaone report out/result.json --report page")


def trained(model: Any, task: Any, folder: Path) -> list[float]:
    """The losses of a Trainer's short training."""
    transformers = pytest.importorskip("transformers")
    losses: list[float] = []

    class Recorded(transformers.Trainer):
        def training_step(self, *arguments: Any) -> Any:
            loss = super().training_step(*arguments)
            losses.append(loss.item())
            return loss

    rows = next(task.batches(0))
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=4, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in rows]
    Recorded(model, arguments, train_dataset=data).train()
    return losses


def test_a_deep_llama_beyond_its_memory_in_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    typed(tmp_path, "thetaone init huggingface llama.py")
    own_text(tmp_path, "llama.py")
    plan = typed(tmp_path, "thetaone plan llama.py --width 32 --depth 12 --budget 30%")
    assert "forwards" in plan
    monkeypatch.syspath_prepend(str(tmp_path))
    import llama as task  # pyright: ignore[reportMissingImports]

    def fresh() -> Any:
        torch.manual_seed(0)
        return task.model(32, 12)

    sample = {"input_ids": next(task.batches(0))[:4], "labels": next(task.batches(0))[:4]}
    with t1.TrainingMemory(model := fresh()) as memory:
        model(**sample).loss.backward()
    store_all = memory.activation_peak_bytes
    budget = store_all // 3
    with pytest.raises(BudgetTooSmallError, match="no schedule fits budget=1KiB"):
        t1.rematerialize(fresh(), sample=sample, budget="1KiB")
    model = t1.rematerialize(fresh(), sample=sample, budget=budget)
    with t1.TrainingMemory(model) as memory:
        model(**sample).loss.backward()
    assert memory.activation_peak_bytes < store_all / 2  # embedding, readout and loss come on top
    model.zero_grad()
    assert trained(model, task, tmp_path / "a") == trained(fresh(), task, tmp_path / "b")
