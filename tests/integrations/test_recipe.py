"""One recipe in people's trainers: each follows ``thetaone train``, saves, loads and resumes."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch import Trainer as Lightning
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments

import thetaone as t1
from thetaone.records import Optimum
from thetaone.studies import train_recipe
from thetaone.studies.request import Size, settle
from thetaone.studies.target import write_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers, about versions and workers
STEPS, WIDTH = 20, 32
# The model shifts its labels, so the first of a row has no prediction; transformers counts every
# label that is not −100, and divides its loss by the count.
TASK = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel

clip, weight_decay, schedule = 0.5, 0.1, "warmup-cosine:0.2"

def model(width):
    return GPT2LMHeadModel(GPT2Config(
        n_embd=width, n_head=width // 16, n_layer=2, n_positions=16, vocab_size=50, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))

def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randint(50, (8, 4), generator=generator).repeat(1, 4)
        labels = rows.clone()
        labels[:, 0] = -100
        yield {"input_ids": rows, "labels": labels}

def loss(model, batch):
    return model(**batch).loss
"""
Scope = dict[str, Any]


def recipe_for(task: Any, *, base: int = WIDTH, width: int = WIDTH, **choices: Any) -> t1.Recipe:
    """The recipe that a transfer with this answer writes."""
    request = settle(
        task, call=t1.transfer,
        axes={"widths": [16], "lrs": [0.01], "seeds": [0], "steps": STEPS},
        training={}, options={}, base=Size(base), choices=choices,
    )  # fmt: skip
    best = Optimum(log2_lr=math.log2(0.01), stderr=0.1, interval=(-7.0, -6.0), loss=1.0)
    return write_recipe(
        request, request.parametrization(), Size(width), best, n_steps=STEPS, memory=None,
        measured_on={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task, its recipe, and what ``thetaone train`` made of it."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "task.py").write_text(TASK)
    recipe_for(folder / "task.py").to_json(folder / "recipe.json")
    train_recipe(folder / "recipe.json", on_step=lambda _: lambda *_: None)
    return folder


@pytest.fixture
def scope(out: Path) -> Scope:
    """The task's functions and a fresh model, as a user's script has them."""
    names: Scope = {"__name__": "task"}
    exec(TASK, names)
    torch.manual_seed(0)
    names["fresh"] = names["model"]
    names["model"] = names["model"](WIDTH)
    return names


@pytest.fixture
def expected(out: Path) -> list[float]:
    """Losses of ``thetaone train``."""
    return list(t1.records.Trial.from_json(out / "target.json").losses)


class Stream(torch.utils.data.IterableDataset[dict[str, Tensor]]):
    """The task's batches, in order, from the one after so many."""

    def __init__(self, batches: Callable[[int], Iterator[dict[str, Tensor]]], n_done: int = 0):
        self.batches, self.n_done = batches, n_done

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return itertools.islice(self.batches(0), self.n_done, None)


class Recorded(Trainer):
    """Keeps the loss of every step as it is; the trainer's own log is rounded."""

    losses: list[float]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.__dict__.setdefault("losses", []).append(loss.item())
        return loss


def hugging_face(folder: Path, recipe: t1.Recipe, model: nn.Module, scope: Scope) -> Recorded:
    return Recorded(
        model,
        TrainingArguments(
            str(folder), max_steps=STEPS, max_grad_norm=0.5, per_device_train_batch_size=1,
            use_cpu=True, report_to="none", save_steps=8, disable_tqdm=True,
        ),
        optimizers=recipe.optimizer_and_scheduler(model),
        train_dataset=Stream(scope["batches"]), data_collator=lambda rows: rows[0],
    )  # fmt: skip


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_the_block_to_paste_follows_bit_for_bit(
    out: Path, scope: Scope, expected: list[float]
) -> None:
    losses: list[float] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = model(**batch).loss
        losses.append(value.item())
        return value

    recipe = t1.Recipe.load(out / "recipe.json")
    scope |= {"batches": scope["batches"](0), "loss": loss}
    exec(recipe.snippet(path=str(out / "recipe.json")), scope)
    assert losses == expected
    saved = load_file(out / "model.safetensors")
    assert all(torch.equal(saved[name], p) for name, p in scope["model"].named_parameters())


def test_hugging_face_follows_saves_and_resumes(
    out: Path, scope: Scope, expected: list[float], tmp_path: Path
) -> None:
    recipe = t1.Recipe.load(out / "recipe.json")
    assert "optimizers=recipe.optimizer_and_scheduler(model)" in recipe.snippet("transformers")
    trainer = hugging_face(tmp_path, recipe, scope["model"], scope)
    trainer.train()
    assert trainer.losses == expected

    again = hugging_face(tmp_path, recipe, scope["fresh"](WIDTH), scope)  # other initial values
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert again.losses == expected[8:]

    trainer.save_model(str(tmp_path / "final"))
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "final")
    assert same(loaded, scope["model"])
    saved = load_file(out / "model.safetensors")
    assert all(torch.equal(saved[name], p) for name, p in loaded.named_parameters())


def test_a_rescaled_model_is_saved_as_what_it_computes(scope: Scope, tmp_path: Path) -> None:
    """Anchored below: the tied readout's factor is in the last norm, so it travels."""
    (tmp_path / "task.py").write_text(TASK)
    recipe = recipe_for(tmp_path / "task.py", base=16)
    model = scope["model"]
    trainer = hugging_face(tmp_path, recipe, model, scope)
    assert not recipe.plain
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    rows = next(scope["batches"](1))["input_ids"]
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "final")
    assert torch.equal(loaded.eval()(rows).logits, model.eval()(rows).logits)


class Module(LightningModule):
    """A task in Lightning."""

    def __init__(self, recipe: t1.Recipe, scope: Scope) -> None:
        super().__init__()
        self.recipe, self.scope, self.model = recipe, scope, scope["model"]
        self.losses: list[float] = []

    def training_step(self, batch: Any) -> Tensor:
        loss = self.scope["loss"](self.model, batch)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        return self.recipe.configure_optimizers(self.model)


def fit(module: Module, folder: Path, n_steps: int = STEPS, resume: Path | None = None) -> Path:
    done = 0 if resume is None else int(resume.stem)  # Lightning does not wind the data forward
    stream = Stream(module.scope["batches"], done)
    trainer = Lightning(
        max_steps=n_steps, gradient_clip_val=0.5, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(stream, batch_size=None)
    trainer.fit(module, loader, ckpt_path=resume)
    trainer.save_checkpoint(folder / f"{n_steps}.ckpt")
    return folder / f"{n_steps}.ckpt"


def test_lightning_follows_saves_and_resumes(
    out: Path, scope: Scope, expected: list[float], tmp_path: Path
) -> None:
    recipe = t1.Recipe.load(out / "recipe.json")
    assert "return recipe.configure_optimizers(self.model)" in recipe.snippet("lightning")
    whole = Module(recipe, scope)
    checkpoint = fit(whole, tmp_path)
    assert whole.losses == expected

    torch.manual_seed(0)
    half = fit(Module(recipe, scope | {"model": scope["fresh"](WIDTH)}), tmp_path, n_steps=8)
    again = Module(recipe, scope | {"model": scope["fresh"](WIDTH)})
    fit(again, tmp_path, resume=half)
    assert again.losses == expected[8:]

    fresh = Module(recipe, scope | {"model": scope["fresh"](WIDTH)})
    fresh.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    assert same(fresh.model, whole.model)


def tokenizer() -> Any:
    """Fifty words, each a number; no download."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({str(i): i for i in range(50)}, unk_token="0")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="0", pad_token="0")


def fine_tuning(folder: Path, recipe: t1.Recipe, model: Any, scope: Scope) -> Any:
    """TRL's trainer: its optimizer is the one line of the recipe."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [row for batch in itertools.islice(scope["batches"](0), 4) for row in batch["input_ids"]]
    args = SFTConfig(
        str(folder), max_steps=STEPS, max_grad_norm=0.5, per_device_train_batch_size=4,
        use_cpu=True, bf16=False, report_to="none", save_steps=8, disable_tqdm=True, seed=0,
    )  # fmt: skip
    return SFTTrainer(
        model, args, train_dataset=Dataset.from_dict({"input_ids": torch.stack(rows).tolist()}),
        processing_class=tokenizer(), optimizers=recipe.optimizer_and_scheduler(model),
    )  # fmt: skip


LORA = """
from peft import LoraConfig, get_peft_model

pretrained, frozen = model, "skip"

def model(width):
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["c_attn", "c_fc"], lora_dropout=0.0, fan_in_fan_out=True)
    return get_peft_model(pretrained(width), config)
"""


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "peft"])
def test_trl_follows_the_recipes_rates_saves_and_resumes(
    adapter: bool, scope: Scope, tmp_path: Path
) -> None:
    (tmp_path / "task.py").write_text(TASK + adapter * LORA)
    recipe = recipe_for(tmp_path / "task.py", frozen="skip" if adapter else "error")
    exec((tmp_path / "task.py").read_text(), scope)
    models: list[nn.Module] = []
    for resume in (None, str(tmp_path / "checkpoint-8")):
        torch.manual_seed(0)
        trainer = fine_tuning(tmp_path, recipe, scope["model"](WIDTH), scope)
        trainer.train(resume_from_checkpoint=resume)
        factors = [recipe.loop.factor(step, STEPS) for step in range(STEPS)]
        assert trainer.optimizer.param_groups[0]["lr"] == recipe.lr * factors[-1]
        models.append(trainer.model)
    assert same(*models)
    assert not same(models[0], scope["model"](WIDTH))

    trainer.save_model(str(tmp_path / "final"))
    torch.manual_seed(0)
    if adapter:
        from peft import PeftModel

        loaded: Any = PeftModel.from_pretrained(scope["pretrained"](WIDTH), tmp_path / "final")
    else:
        loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "final")
    rows = next(scope["batches"](1))["input_ids"]
    expected: Any = models[0].eval()
    assert torch.equal(loaded.eval()(rows).logits, expected(rows).logits)
