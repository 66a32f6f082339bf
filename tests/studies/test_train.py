"""The target's training: checkpoints, resuming after a kill, the recipe in another loop."""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import thetaone as t1
from thetaone.errors import CheckpointError, InputError, MismatchError, RecordError
from thetaone.records import Trial
from thetaone.studies import train_recipe
from thetaone.studies.target import Checkpoints, require_plain_weights, save_weights
from thetaone.studies.target._plain_state import PlainState

TASK = """
import torch
from torch import nn

clip = 1.0
weight_decay = 0.1

def schedule(step, steps):
    return min((step + 1) / 5, 1) * (1 - step / steps)

def model(width):
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 1),
    )

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(32, 8, generator=generator)
        yield x, x.prod(1, keepdim=True)

def loss(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1])

def evaluate(model):
    model.eval()
    with torch.no_grad():
        return loss(model, next(batches(99))).item()
"""
CALL = {"widths": [8, 16], "target": 32, "lrs": [2.0**p for p in (-9, -8, -7, -6)],
        "seeds": [0, 1], "steps": 60, "engine": "serial"}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a transfer."""
    folder = tmp_path_factory.mktemp("transfer")
    (folder / "task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thetaone.studies._job.verify_laws", list)
        t1.transfer(folder / "task.py", report=folder / "out", **CALL)
    return folder / "out"


def quiet(recipe):
    return lambda *_: None


def trained(*arguments, **options) -> tuple[Trial, float | None]:
    """What ``train_recipe`` gives in a process alone."""
    answer = train_recipe(*arguments, on_step=quiet, **options)
    assert answer is not None
    return answer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_recipe_trains_the_same_weights_again(out: Path, tmp_path: Path) -> None:
    trial, evaluation = trained(out / "recipe.json", folder=tmp_path)
    result = json.loads((out / "result.json").read_text())
    assert list(trial.losses) == result["target"]["losses"]
    assert evaluation == result["evaluation"]
    assert same(weights(tmp_path), weights(out))


def test_a_loop_of_ones_own_follows_bit_for_bit(out: Path) -> None:
    scope: dict = {}
    exec(TASK, scope)
    recipe = t1.Recipe.load(out / "recipe.json")
    torch.manual_seed(recipe.seed)
    model, batches, losses = scope["model"](32), scope["batches"](recipe.seed), []
    optimizer = recipe.optimizer(model)
    scheduler = recipe.scheduler(optimizer)
    for _ in range(recipe.n_steps):
        loss = scope["loss"](model, next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.loop.clip or 0.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    assert losses == json.loads((out / "result.json").read_text())["target"]["losses"]


class Stopped(Exception):
    """A training that ends in the middle."""


def stop_after(n_steps: int):
    def on_step(done: int, *_: object) -> None:
        if done == n_steps:
            raise Stopped(f"after step {done}")

    return lambda recipe: on_step


def test_a_stopped_training_goes_on_with_the_same_bits(out: Path, tmp_path: Path) -> None:
    for n_steps in (7, 23, 41):
        with pytest.raises(Stopped, match=f"after step {n_steps}$"):
            train_recipe(
                out / "recipe.json", folder=tmp_path, checkpoint_minutes=0,
                on_step=stop_after(n_steps),
            )  # fmt: skip
        assert (tmp_path / "checkpoint.pt").exists()
    trial, _ = trained(out / "recipe.json", folder=tmp_path)
    assert len(trial.losses) == 60
    assert same(weights(tmp_path), weights(out))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_twenty_kills_change_no_bit(out: Path, tmp_path: Path) -> None:
    """Each lands at a random moment after the training has gone on, the writing of a checkpoint
    among them: every step writes one."""
    recipe = t1.Recipe.load(out / "recipe.json")
    loop = recipe.loop.model_copy(update={"schedule": "warmup-cosine:0.1", "factors": ()})
    recipe.model_copy(update={"loop": loop, "n_steps": 1000}).to_json(tmp_path / "recipe.json")
    whole, _ = trained(tmp_path / "recipe.json", folder=tmp_path / "whole")

    call = {"folder": tmp_path / "killed", "checkpoint_minutes": 0, "on_step": quiet}
    checkpoint, draw, steps = tmp_path / "killed" / "checkpoint.pt", random.Random(0), [0]
    for _ in range(20):
        arguments = (tmp_path / "recipe.json",)
        process = multiprocessing.get_context("fork").Process(
            target=train_recipe, args=arguments, kwargs=call
        )
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process.start()
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(draw.random() / 10)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it was still training
        steps.append(len(torch.load(checkpoint, weights_only=True)["losses"]))
    assert steps == sorted(set(steps))  # each went on from the one before
    resumed, _ = trained(tmp_path / "recipe.json", folder=tmp_path / "killed")
    assert resumed.losses == whole.losses
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def torchrun(*arguments: str | Path) -> None:
    """``torchrun -m thetaone train`` on two processes, which talk by gloo."""
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "thetaone", "train", *map(str, arguments)]  # fmt: skip
    run = subprocess.run(call, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(out: Path, tmp_path: Path) -> None:
    """Bit for bit those of one that splits its batches in two; in an even order of addition."""
    recipe = t1.Recipe.load(out / "recipe.json")
    (tmp_path / "task.py").write_text(TASK.replace("nn.Dropout(0.1)", "nn.Identity()"))
    recipe = recipe.model_copy(update={"reference": str(tmp_path / "task.py")})
    recipe.to_json(tmp_path / "recipe.json")
    torchrun(tmp_path / "recipe.json", "--report", tmp_path / "two")

    halves = recipe.loop.model_copy(update={"accumulate": 2})
    recipe.model_copy(update={"loop": halves}).to_json(tmp_path / "halves.json")
    one, _ = trained(tmp_path / "halves.json", folder=tmp_path / "one")
    assert same(weights(tmp_path / "two"), weights(tmp_path / "one"))
    two = Trial.from_json(tmp_path / "two" / "target.json")
    assert two.losses == pytest.approx(one.losses, rel=1e-6)

    whole, _ = trained(tmp_path / "recipe.json", folder=tmp_path / "whole")
    assert two.losses == pytest.approx(whole.losses, rel=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_in_two(out: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"after step 30$"):
        train_recipe(
            out / "recipe.json", folder=tmp_path, checkpoint_minutes=0, on_step=stop_after(30)
        )
    torchrun(out / "recipe.json", "--report", tmp_path)
    two = Trial.from_json(tmp_path / "target.json")
    whole = json.loads((out / "result.json").read_text())["target"]["losses"]
    assert list(two.losses[:29]) == whole[:29]
    assert len(two.losses) == 60


BLOCKS = """
import torch
from torch import nn

weight_decay = 0.1
schedule = "warmup-cosine:0.1"

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, width)
        self.down = nn.Linear(width, width)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

model = Net

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(11, (8, 6), generator=generator)

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

def evaluate(model):
    with torch.no_grad():
        return loss(model, next(batches(99))).item()
"""


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, 0.5])
def test_two_processes_that_share_the_parameters_end_with_the_weights_of_one(
    clip: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit without clipping; its norm is added up shard by shard, so then to rounding."""
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    (tmp_path / "task.py").write_text(BLOCKS)
    t1.transfer(tmp_path / "task.py", report=tmp_path / "out", clip=clip, **{**CALL, "steps": 20})
    recipe = t1.Recipe.load(tmp_path / "out" / "recipe.json")
    halves = recipe.loop.model_copy(update={"accumulate": 2})
    recipe.model_copy(update={"loop": halves}).to_json(tmp_path / "halves.json")
    one, evaluation = trained(tmp_path / "halves.json", folder=tmp_path / "one")

    sharded = tmp_path / "sharded"
    torchrun(tmp_path / "out" / "recipe.json", "--report", sharded, "--parallel", "fsdp")
    two = Trial.from_json(sharded / "target.json")
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
    expected = weights(tmp_path / "one")
    if clip is None:
        assert same(weights(sharded), expected)
    for name, value in weights(sharded).items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name
    assert two.n_parameters == one.n_parameters

    again = tmp_path / "again"  # ten steps alone, the rest in shards
    with pytest.raises(Stopped, match=r"after step 10$"):
        train_recipe(
            tmp_path / "halves.json", folder=again, checkpoint_minutes=0, on_step=stop_after(10)
        )
    state = torch.load(again / "checkpoint.pt", weights_only=True)
    torch.save({**state, "recipe": recipe.fingerprint}, again / "checkpoint.pt")
    torchrun(tmp_path / "out" / "recipe.json", "--report", again, "--parallel", "fsdp")
    for name, value in weights(again).items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name

    shards = torch.load(sharded / "checkpoint.pt", weights_only=True)  # of whole tensors
    torch.save({**shards, "recipe": t1.Recipe.load(tmp_path / "halves.json").fingerprint},
               sharded / "checkpoint.pt")  # fmt: skip
    resumed, again_evaluated = trained(tmp_path / "halves.json", folder=sharded)
    assert resumed.losses == two.losses
    assert again_evaluated == pytest.approx(evaluation, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parallel": "fsdp"}, r"parallel='fsdp' in one process: start several, e\.g\. torchrun"),
        ({"parallel": "zero3"}, "parallel='zero3': choose ddp or fsdp"),
        (
            {"parallel": "fsdp", "monitor_every": 5},
            "look at a whole model, and with parallel='fsdp'",
        ),
    ],
)
def test_a_parallel_that_cannot_be_is_refused(
    options: dict, message: str, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train_recipe(out / "recipe.json", folder=tmp_path, on_step=quiet, **options)


@pytest.mark.slow
def test_rows_that_cannot_be_shared_out_are_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK.replace("torch.randn(32, 8", "torch.randn(31, 8"))
    with pytest.raises(AssertionError, match=r"processes=2: tensors of a batch have \[31\] rows"):
        torchrun(out / "recipe.json", "--task", tmp_path / "task.py", "--report", tmp_path)


def test_a_checkpoint_of_another_recipe_is_refused(out: Path, tmp_path: Path) -> None:
    train_recipe(out / "recipe.json", folder=tmp_path, on_step=quiet)
    other = t1.Recipe.load(out / "recipe.json").model_copy(update={"lr": 0.5})
    other.to_json(tmp_path / "recipe.json")
    with pytest.raises(CheckpointError, match=r"is of another recipe .*remove it to train"):
        train_recipe(tmp_path / "recipe.json", folder=tmp_path, on_step=quiet)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"lr": -1.0}, "lr"),
        ({"lr": "NaN"}, "lr"),
        ({"seed": 2**70}, "seed"),
        ({"loop": {"clip": -1.0}}, "clip"),
        ({"loop": {"accumulate": 0}}, "accumulate"),
    ],
)
def test_a_recipe_changed_by_hand_is_checked(change, field: str, out: Path, tmp_path: Path) -> None:
    entries = json.loads((out / "recipe.json").read_text())
    del entries["digest"]
    loop = {**entries["loop"], **change.get("loop", {})}
    (tmp_path / "recipe.json").write_text(json.dumps({**entries, **change, "loop": loop}))
    with pytest.raises(RecordError, match=field):
        t1.Recipe.load(tmp_path / "recipe.json")


@pytest.mark.parametrize("minutes", [-1.0, float("nan")])
def test_checkpoints_have_a_time_between_them(minutes: float, out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"minutes between checkpoints=.*need 0 or more"):
        trained(out / "recipe.json", folder=tmp_path, checkpoint_minutes=minutes)


def test_a_damaged_checkpoint_is_named(out: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"half of it")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read.*Remove it"):
        train_recipe(out / "recipe.json", folder=tmp_path, on_step=quiet)


def test_a_full_disk_leaves_the_last_good_checkpoint(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped, match=r"after step 9$"):
        train_recipe(
            out / "recipe.json", folder=tmp_path, checkpoint_minutes=0, on_step=stop_after(9)
        )
    good = (tmp_path / "checkpoint.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; the last one stays"):
        train_recipe(out / "recipe.json", folder=tmp_path, checkpoint_minutes=0, on_step=quiet)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert not (tmp_path / "checkpoint.new").exists()
    monkeypatch.undo()
    train_recipe(out / "recipe.json", folder=tmp_path, on_step=quiet)
    assert same(weights(tmp_path), weights(out))


def test_data_that_changed_is_told(out: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"after step 9$"):
        train_recipe(
            out / "recipe.json", folder=tmp_path, checkpoint_minutes=0, on_step=stop_after(9)
        )
    other = tmp_path / "task.py"
    other.write_text(TASK.replace("torch.randn(32, 8", "2 * torch.randn(32, 8"))
    with pytest.raises(CheckpointError, match=r"batch [89] of the data is another one"):
        train_recipe(out / "recipe.json", task=other, folder=tmp_path, on_step=quiet)


@pytest.mark.parametrize(
    ("before", "after"), [("nn.ReLU()", "nn.GELU()"), ("mse_loss", "smooth_l1_loss")]
)
def test_a_task_that_changed_is_told(before: str, after: str, out: Path, tmp_path: Path) -> None:
    """Of the same shapes and data: its first loss is another one."""
    with pytest.raises(Stopped, match=r"after step 9$"):
        train_recipe(
            out / "recipe.json", folder=tmp_path, checkpoint_minutes=0, on_step=stop_after(9)
        )
    other = tmp_path / "task.py"
    other.write_text(TASK.replace(before, after))
    with pytest.raises(CheckpointError, match=r"the first loss is .* the task's model or loss has"):
        train_recipe(out / "recipe.json", task=other, folder=tmp_path, on_step=quiet)


COUNTING = TASK.replace(
    "def model(width):\n    return nn.Sequential(",
    """class Centre(nn.Module):
    \"\"\"Subtracts a running mean that its state dict leaves out.\"\"\"

    def __init__(self, width):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width), persistent=False)
        self.calls, self.own = {"n": 0}, [torch.Generator().manual_seed(1)]

    def forward(self, x):
        self.calls["n"] += 1
        x = x * (1 + 1 / self.calls["n"]) + torch.rand((), generator=self.own[0])
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return x - self.mean

def model(width):
    return nn.Sequential(""",
).replace("nn.Dropout(0.1)", "Centre(width), nn.BatchNorm1d(width), nn.Dropout(0.1)")
COUNTING = COUNTING.replace("yield x, x.prod(1, keepdim=True)", "yield Batch(x)").replace(
    "def batches",
    """class Batch:
    \"\"\"Of no printed form of its own.\"\"\"

    def __init__(self, x):
        self.parts = x, x.prod(1, keepdim=True)

    def __getitem__(self, index):
        return self.parts[index]

def batches""",
)


def test_what_no_state_dict_holds_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    (tmp_path / "task.py").write_text(COUNTING)
    t1.transfer(tmp_path / "task.py", report=tmp_path / "out", **{**CALL, "steps": 20})
    recipe, again = tmp_path / "out" / "recipe.json", tmp_path / "again"
    with pytest.raises(Stopped, match=r"after step 9$"):
        train_recipe(recipe, folder=again, checkpoint_minutes=0, on_step=stop_after(9))
    trained(recipe, folder=again)
    assert same(weights(again), weights(tmp_path / "out"))


class Odd:
    """A state that no checkpoint holds."""

    n = 0


class Keeps(nn.Module):
    """Plain attributes of every sort."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.text, self.shared, self.odd = 0, "a", [1.0], Odd()
        self.draws = random.Random(0), np.random.default_rng(0)
        self.ema = torch.zeros(2)

    def moves(self) -> None:
        self.count, self.text = self.count + 1, "b"
        self.shared.append(self.draws[0].random() + self.draws[1].random())
        self.ema = self.ema + 1


def test_plain_attributes_are_kept_and_put_back_in_place() -> None:
    model, fresh = Keeps(), Keeps()
    state, other = PlainState.of(model), PlainState.of(fresh)
    assert state.moved() == ({}, [])
    model.moves()
    kept, lost = state.moved()
    assert (sorted(kept), lost) == ([".count", ".draws", ".ema", ".shared", ".text"], [])
    shared = fresh.shared
    other.restore(kept)
    assert fresh.shared is shared
    model.moves()
    fresh.moves()
    assert (fresh.count, fresh.text, fresh.shared) == (model.count, "b", model.shared)
    assert torch.equal(fresh.ema, model.ema)
    model.odd.n += 1
    assert state.moved()[1] == [".odd"]


def test_a_checkpoint_without_all_of_the_state_is_refused_or_told(
    out: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stopped, match=r"after step 9$"):
        train_recipe(
            out / "recipe.json", folder=tmp_path, checkpoint_minutes=0, on_step=stop_after(9)
        )
    file = tmp_path / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "task": "another"}, file)
    with pytest.warns(UserWarning, match="what the task keeps between steps"):
        trained(out / "recipe.json", folder=tmp_path)
    torch.save({**state, "lost": ["2.odd"]}, file)
    with pytest.raises(CheckpointError, match=r"2\.odd had changed .* a checkpoint cannot hold"):
        trained(out / "recipe.json", folder=tmp_path)


def test_weights_that_the_file_cannot_hold_are_named(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("frequencies", torch.ones(2, dtype=torch.complex128))
    with pytest.raises(InputError, match=r"frequencies of the model's state dict is torch.complex"):
        require_plain_weights(model)
    extra = type("Extra", (nn.Linear,), {"get_extra_state": lambda self: {"version": 3}})(2, 2)
    with pytest.warns(UserWarning, match="lacks _extra_state of the state dict"):
        save_weights(extra, tmp_path / "model.safetensors")
    assert weights(tmp_path).keys() == {"weight", "bias"}


def test_a_recipe_for_another_model_names_what_differs(out: Path) -> None:
    recipe = t1.Recipe.load(out / "recipe.json")
    with pytest.raises(MismatchError, match=r"0\.weight"):
        recipe.optimizer(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1)))


def test_a_recipe_of_an_object_asks_for_its_task(out: Path, tmp_path: Path) -> None:
    recipe = t1.Recipe.load(out / "recipe.json").model_copy(update={"reference": None})
    recipe.to_json(tmp_path / "recipe.json")
    with pytest.raises(InputError, match="made from a task that is an object"):
        train_recipe(tmp_path / "recipe.json", on_step=quiet)


TIED = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.wte, self.up = nn.Embedding(12, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 12, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens):
        x = self.wte(tokens)
        return self.head(x + self.up(x))

model = Tied

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(12, (8, 6), generator=generator)

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
"""


def test_weights_that_no_plain_model_has_are_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    (tmp_path / "task.py").write_text(TIED)
    call = {**CALL, "report": tmp_path / "out", "base_width": 8}
    message = r"weights would not be a plain model's: head shares .*Or anchor at the target"
    with pytest.raises(InputError, match=message):
        t1.transfer(tmp_path / "task.py", **call)
    assert not (tmp_path / "out" / "sweep.journal").exists()


def test_a_readout_that_export_unties_is_refused(tmp_path: Path) -> None:
    """A config that says so lets export untie it; the bare weights would load as tied ones."""
    scope: dict = {}
    exec(TIED, scope)
    model = scope["model"](32)
    model.config = type("Config", (), {"tie_word_embeddings": True})()
    require_plain_weights(model)
    t1.parametrize(
        model, base=scope["model"](8), lr=0.01, sample=torch.zeros(2, 5, dtype=torch.long)
    )
    with pytest.raises(InputError, match=r"no norm before it can hold the readout's factor"):
        require_plain_weights(model)


def test_groups_are_told_in_absolute_numbers(out: Path) -> None:
    (group,) = t1.Recipe.load(out / "recipe.json").groups
    assert (group.optimizer, group.options["weight_decay"]) == ("AdamW", 0.1)
    assert group.n_parameters == 8 * 32 + 32 + 32 * 32 + 32 + 32 + 1


def test_what_is_looked_at_changes_no_bit(out: Path, tmp_path: Path) -> None:
    """The task's evaluation leaves the model in eval mode and would switch its dropout off."""
    looked = {"evaluate_every": 20, "monitor_every": 30}
    _, evaluation = trained(out / "recipe.json", folder=tmp_path, **looked)
    assert same(weights(tmp_path), weights(out))
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert {line["step"]: line.get("evaluation") for line in lines} == {
        1: None, 20: pytest.approx(lines[1]["evaluation"]), 31: None,
        40: pytest.approx(lines[3]["evaluation"]), 60: evaluation,
    }  # fmt: skip
    assert {line["step"] for line in lines if "layers" in line} == {1, 31}
    assert lines[0]["layers"]["3"]["status"] == "ok"
    assert lines[0]["layers"]["3"]["update_norm"] > 0


def test_an_evaluation_that_the_task_lacks_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK[: TASK.index("def evaluate")])
    call = {"task": tmp_path / "task.py", "folder": tmp_path, "on_step": quiet}
    with pytest.raises(InputError, match="evaluate_every=5: the task has no evaluate; write def"):
        train_recipe(out / "recipe.json", evaluate_every=5, **call)
    with pytest.raises(InputError, match="monitor_every=-1: need 1 or more steps, or 0"):
        train_recipe(out / "recipe.json", monitor_every=-1, **call)


def test_a_checkpoint_of_another_recipe_is_set_aside_by_a_new_transfer(
    out: Path, tmp_path: Path
) -> None:
    train_recipe(out / "recipe.json", folder=tmp_path, on_step=quiet)
    fingerprint = t1.Recipe.load(out / "recipe.json").fingerprint
    written = (tmp_path / "checkpoint.pt").read_bytes()
    assert Checkpoints(folder=tmp_path, recipe=fingerprint).set_aside() is None
    kept = Checkpoints(folder=tmp_path, recipe="another").set_aside()
    assert kept is not None
    assert kept.read_bytes() == written
    assert not (tmp_path / "checkpoint.pt").exists()


PLACES = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.letters, self.places = nn.Embedding(16, width), nn.Embedding(64, width)
        self.readout = nn.Linear(width, 16)

    def forward(self, text):  # of the places those that the text has: 8 here, fewer in a guess
        return self.readout(torch.tanh(self.letters(text) + self.places.weight[:text.shape[1]]))

model = Model

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(16, (4, 9), generator=generator)

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
"""


def test_a_recipe_is_read_on_the_tasks_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guessed inputs are of another length than the base's: the target got a group of its own."""
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    (tmp_path / "task.py").write_text(PLACES, encoding="utf-8")
    call = CALL | {"lrs": [2**-8, 2**-7, 2**-6], "seeds": [0], "steps": 2}
    t1.transfer(tmp_path / "task.py", report=tmp_path / "out", **call)
    recipe = t1.Recipe.load(tmp_path / "out" / "recipe.json")
    assert recipe.plain
    assert len(recipe.groups) == 1
    trained(tmp_path / "out" / "recipe.json")  # goes on from its own checkpoint
