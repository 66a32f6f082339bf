"""Lightning trains as the plain loop does, and its callback reads what the monitor reads."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError
from thetaone.integrations._readings import LayerFaultWarning
from thetaone.integrations.lightning import SpectralCallback
from thetaone.parametrization import SpectralMonitor

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainer, about workers and logging
Batch = tuple[Tensor, Tensor]


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def batches() -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    return [
        (torch.randn(16, 8, generator=g), torch.randint(3, (16,), generator=g)) for _ in range(5)
    ]


class Stream(torch.utils.data.IterableDataset[Batch]):
    def __iter__(self) -> Iterator[Batch]:
        return iter(batches())


def parametrized(model: nn.Module) -> torch.optim.Optimizer:
    return t1.parametrize(model, base=mlp(16), optimizer=torch.optim.AdamW, lr=0.01)


class Module(pl.LightningModule):
    def __init__(self, n_optimizers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model, self.n_optimizers = mlp(64), n_optimizers
        self.automatic_optimization = n_optimizers == 1
        self.losses: list[float] = []

    def training_step(self, batch: Batch) -> Tensor:
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        torch.manual_seed(1)  # of the base
        built = [parametrized(self.model) for _ in range(self.n_optimizers)]
        return built[0] if len(built) == 1 else built


class Metrics(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, dict[str, float]] = {}

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return "metrics"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(key.startswith("spectral") for key in metrics):
            self.seen[int(step or 0)] = metrics


def fit(module: Module, watch: SpectralCallback, logger: Metrics | bool = False) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[watch],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Stream(), batch_size=None))


def test_losses_and_readings_are_those_of_the_plain_loop() -> None:
    module, logger = Module(), Metrics()
    watch = SpectralCallback(every=2)
    fit(module, watch, logger)
    torch.manual_seed(0)
    model = mlp(64)
    torch.manual_seed(1)
    optimizer = parametrized(model)
    losses: list[float] = []
    with SpectralMonitor(model, optimizer, every=2) as monitor:
        for x, y in batches():
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert module.losses == losses
    expected = [r.model_copy(update={"layer": f"model.{r.layer}"}) for r in monitor.readings]
    assert watch.readings == expected
    assert sorted(logger.seen) == [1, 3, 5]
    assert logger.seen[3]["spectral/model.2/update_norm"] == next(
        r.update_norm for r in monitor.readings if (r.step, r.layer) == (2, "2")
    )
    assert not any(m._forward_pre_hooks for m in module.modules())


def test_a_dead_layer_is_warned_of_by_name() -> None:
    module = Module()
    module.model[3] = nn.Threshold(1e9, 0.0)  # no unit is ever active; decay moves the weights
    with pytest.warns(LayerFaultWarning, match=r"model\.2 is dead at step 1.*coordinate_check"):
        fit(module, SpectralCallback(every=1))


def test_several_optimizers_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 optimizers.*mapping of roles"):
        fit(Module(n_optimizers=2), SpectralCallback())


WITHOUT = """
import sys
sys.modules[{library!r}] = None
from thetaone.errors import MissingExtraError
try:
    import thetaone.integrations.{library}
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_without_the_library_the_extra_is_named(library: str) -> None:
    code = WITHOUT.format(library=library)
    environment = {**os.environ, "PYTHONPATH": str(Path(t1.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    said = rf"{library} is not installed; run: pip install '.*\[{library}\]'"
    assert re.fullmatch(said, run.stdout.strip())


def test_no_fault_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerFaultWarning)
        watch = SpectralCallback(every=1)
        fit(Module(), watch)
    assert {reading.step for reading in watch.readings} == set(range(len(list(batches()))))


def test_the_callback_reads_a_mixed_precision_training(tmp_path: Path) -> None:
    """bf16-mixed: weights bit for bit those of the training without it."""
    weights: list[list[Tensor]] = []
    for callbacks in ([], [SpectralCallback(every=1)]):
        module = Module()
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", precision="bf16-mixed", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, callbacks=list(callbacks),
            default_root_dir=tmp_path, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(Stream(), batch_size=None))
        weights.append([p.detach() for p in module.parameters()])
        assert not callbacks or all(0 < r.alignment <= 1.02 for r in callbacks[0].readings)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
