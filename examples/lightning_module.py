"""Lightning: ``configure_optimizers`` returns what ``t1.parametrize`` returns; a callback watches.

The bundled character transformer at four times the width where its rate was tuned.
Run: ``python examples/lightning_module.py``.
"""

import argparse
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

import thetaone as t1
from thetaone.integrations.lightning import SpectralCallback
from thetaone.tasks import lm


class WideModel(pl.LightningModule):
    def __init__(self, width: int, base_width: int, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = lm.model(width)
        self.losses: list[float] = []

    def training_step(self, batch: Tensor) -> Tensor:
        loss = lm.loss(self.model, batch)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = t1.parametrize(
            self.model,
            base=lambda: lm.model(self.hparams["base_width"]),
            optimizer=torch.optim.AdamW,
            lr=self.hparams["lr"],
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Text(torch.utils.data.IterableDataset[Tensor]):
    """Endless batches of the bundled text."""

    def __iter__(self) -> Any:
        return lm.batches(seed=0)


def main(arguments: list[str] | None = None) -> tuple[WideModel, SpectralCallback]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--base-width", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2**-7, help="tuned at the base width")
    given = parser.parse_args(arguments)

    torch.manual_seed(0)
    module = WideModel(given.width, given.base_width, given.lr)
    watch = SpectralCallback(every=50)
    trainer = pl.Trainer(
        max_steps=given.steps,
        accelerator="auto",
        devices=1,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Text(), batch_size=None))
    return module, watch


if __name__ == "__main__":
    module, watch = main()
    print(f"loss {module.losses[0]:.3f} -> {module.losses[-1]:.3f}")
    for reading in watch.readings[-8:]:
        print(
            f"{reading.layer:32s} |W| {reading.weight_norm:7.3f}  |dW| {reading.update_norm:8.5f}"
        )
