"""Hugging Face Trainer: a GPT-2 whose learning rate was tuned at a quarter of its width.

An unmodified model from a config, character by character on the bundled text; no download. The
only lines that differ from any other training are the two with ``trainer_optimizers``.
Run: ``python examples/hf_trainer.py``.
"""

import argparse
import tempfile
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from thetaone.integrations.transformers import SpectralCallback, trainer_optimizers
from thetaone.tasks import lm


def gpt2(width: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_embd=width,
        n_head=width // lm.HEAD_SIZE,  # heads keep their size and grow in number
        n_layer=2,
        n_positions=lm.CONTEXT,
        vocab_size=lm.N_CHARACTERS,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


class Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Windows of the bundled text."""

    def __init__(self, count: int) -> None:
        stream = lm.batches(seed=0)
        rows = torch.cat([next(stream) for _ in range(-(-count // lm.BATCH))])
        self.rows = rows[:count, : lm.CONTEXT]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def main(arguments: list[str] | None = None) -> tuple[list[dict[str, Any]], SpectralCallback]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--base-width", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2**-7, help="tuned at the base width")
    parser.add_argument("--out", default=None)
    given = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as scratch:
        args = TrainingArguments(
            output_dir=given.out or scratch,
            learning_rate=given.lr,
            weight_decay=0.01,
            max_steps=given.steps,
            per_device_train_batch_size=16,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        torch.manual_seed(0)
        model = gpt2(given.width)
        watch = SpectralCallback(every=50)
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=Windows(16 * given.steps),
            optimizers=trainer_optimizers(model, args, base=lambda: gpt2(given.base_width)),
            callbacks=[watch],
        )
        trainer.train()
    return trainer.state.log_history, watch


if __name__ == "__main__":
    logs, watch = main()
    losses = [entry["loss"] for entry in logs if "loss" in entry]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    for reading in watch.readings[-8:]:
        print(
            f"{reading.layer:32s} |W| {reading.weight_norm:7.3f}  |dW| {reading.update_norm:8.5f}"
        )
