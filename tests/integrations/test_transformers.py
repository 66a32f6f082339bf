"""Hugging Face Trainer: at the base width bit for bit its own training, prescribed rates above."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from thetaone.errors import UnknownOptimizerError
from thetaone.integrations._readings import LayerFaultWarning
from thetaone.integrations.transformers import SpectralCallback, trainer_optimizers

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainer, about versions


def gpt2(width: int, seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        n_embd=width, n_head=width // 16, n_layer=1, n_positions=16, vocab_size=50,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


class Tokens(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = (torch.arange(16) * (index + 1)) % 50
        return {"input_ids": row, "labels": row}


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder), learning_rate=0.01, max_steps=4, use_cpu=True,
        per_device_train_batch_size=4, logging_steps=1, save_strategy="no", report_to="none",
        disable_tqdm=True, seed=0, **{"weight_decay": 0.1, **options},
    )  # fmt: skip


def run(trainer: Trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_at_the_base_width_it_is_the_trainers_own_training(optim: str, tmp_path: Path) -> None:
    args = arguments(tmp_path, optim=optim, lr_scheduler_type="cosine", warmup_steps=1)
    plain = gpt2(32)
    expected = run(Trainer(model=plain, args=args, train_dataset=Tokens()))
    model = gpt2(32)
    optimizers = trainer_optimizers(model, args, base=gpt2(32))
    found = run(Trainer(model=model, args=args, train_dataset=Tokens(), optimizers=optimizers))
    assert found == expected
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


class Scaled(torch.nn.Module):
    """A gain of its own, which ``Trainer`` decays, beside a norm, which it does not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.norm = torch.nn.Linear(8, width), torch.nn.LayerNorm(width)
        self.layer_scale, self.head = (
            torch.nn.Parameter(torch.ones(width)),
            torch.nn.Linear(width, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.inner(x)).relu() * self.layer_scale)


def test_what_the_trainer_decays_by_its_names_is_decayed(tmp_path: Path) -> None:
    model = Scaled(64)
    optimizer, _ = trainer_optimizers(model, arguments(tmp_path), base=Scaled(64))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    got = {name for name, p in model.named_parameters() if decays[id(p)]}
    assert got == {"inner.weight", "layer_scale", "head.weight"}
    optimizer, _ = trainer_optimizers(
        Scaled(64), arguments(tmp_path), base=Scaled(16), decay_vectors=True
    )
    assert all(group["weight_decay"] for group in optimizer.param_groups)


def test_wide_rates_follow_the_schedule_in_the_prescribed_ratio(tmp_path: Path) -> None:
    args = arguments(tmp_path, lr_scheduler_type="linear")
    model = gpt2(64)
    optimizer, _ = trainer_optimizers(model, args, base=gpt2(16))
    hidden = model.get_parameter("transformer.h.0.mlp.c_fc.weight")
    group = next(g for g in optimizer.param_groups if any(p is hidden for p in g["params"]))
    assert (group["lr"], group["weight_decay"]) == (0.0025, pytest.approx(0.4))
    gain = model.get_parameter("transformer.h.0.ln_1.weight")
    vectors = next(g for g in optimizer.param_groups if any(p is gain for p in g["params"]))
    assert (vectors["lr"], vectors["weight_decay"]) == (0.01, 0.0)
    trainer = Trainer(model=model, args=args, train_dataset=Tokens(), optimizers=(optimizer, None))
    run(trainer)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert group["lr"] == pytest.approx(vectors["lr"] / 4)


def test_another_class_takes_rate_and_decay_from_the_arguments(tmp_path: Path) -> None:
    mixture = {
        "hidden": (torch.optim.Muon, {"lr": 0.02}),
        "rest": (torch.optim.AdamW, {"betas": (0.9, 0.95)}),
    }
    args = arguments(tmp_path)
    optimizer, _ = trainer_optimizers(gpt2(64), args, base=gpt2(32), optimizer=mixture)
    assert {g["lr"] for g in optimizer.param_groups} >= {0.01, 0.02}
    assert {g["betas"] for g in optimizer.param_groups if "betas" in g} == {(0.9, 0.95)}


class After(TrainerCallback):
    """Sees what a logger's callback would."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.setdefault(state.global_step, dict(kwargs["logs"]))


def test_the_callback_logs_each_reading_once_and_warns(tmp_path: Path) -> None:
    model = gpt2(32)
    blocked = model.get_parameter("transformer.h.0.mlp.c_proj.weight")
    torch.nn.init.zeros_(blocked.requires_grad_(False))  # starves c_fc, which decay alone moves
    watch = SpectralCallback(every=2)
    args = arguments(tmp_path)
    optimizers = trainer_optimizers(model, args, base=gpt2(32), frozen="skip")
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Tokens(),
        optimizers=optimizers,
        callbacks=[watch, after := After()],
    )
    with pytest.warns(LayerFaultWarning, match=r"mlp\.c_fc is dead at step 2"):
        trainer.train()
    assert sorted({reading.step for reading in watch.readings}) == [0, 2]
    key = "spectral/transformer.wte/weight_norm"
    assert [step for step, entry in after.seen.items() if key in entry] == [1, 3]
    layer = "transformer.h.0.attn.c_attn"
    reading = next(r for r in watch.readings if (r.layer, r.step) == (layer, 2))
    assert after.seen[3][f"spectral/{layer}/update_norm"] == reading.update_norm
    assert 0 < reading.alignment <= 1
    assert not any(m._forward_pre_hooks for m in model.modules() if "ln" in type(m).__name__)


def test_transformers_own_adafactor_is_refused_and_the_model_untouched(tmp_path: Path) -> None:
    model = gpt2(64)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(UnknownOptimizerError, match=r"pass optimizer=torch\.optim\.Adafactor"):
        trainer_optimizers(model, arguments(tmp_path, optim="adafactor"), base=gpt2(32))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_callback_reads_a_bf16_training(tmp_path: Path) -> None:
    """``bf16=True``: weights bit for bit those of the training without it."""
    args = arguments(tmp_path, bf16=True)
    weights: list[list[Tensor]] = []
    for callbacks in ([], [SpectralCallback(every=1)]):
        model = gpt2(32)
        optimizers = trainer_optimizers(model, args, base=gpt2(16))
        trainer = Trainer(
            model=model, args=args, train_dataset=Tokens(), optimizers=optimizers,
            callbacks=list(callbacks),
        )  # fmt: skip
        trainer.train()
        weights.append([p.detach() for p in model.parameters()])
        for callback in callbacks:
            assert {r.step for r in callback.readings} == {0, 1, 2, 3}
            assert all(r.alignment > 0 for r in callback.readings if "c_fc" in r.layer)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
