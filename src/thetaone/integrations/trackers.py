"""Trackers of experiments: callbacks of ``t1.sweep`` that write each trial where a team looks.

Each is ``f(result_so_far, trial)``, imports its library when it is made, and needs no more than
``callbacks=[TensorBoard("runs")]``.
"""

import math
from pathlib import Path
from typing import Any

from thetaone.errors import MissingExtraError
from thetaone.records import SweepResult, Trial, local_path


def run_name(trial: Trial) -> str:
    """The trial in words that fit a file name: ``mup-width32-lr2^-6.00-seed0``."""
    further = "".join(f"-{name}{value:g}" for name, value in trial.axes.items())
    depth = "" if trial.depth is None else f"-depth{trial.depth}"
    rate = f"lr2^{math.log2(trial.lr):.2f}"
    stop = f"-to{trial.spec.stop}" if trial.spec.stop else ""
    size = f"width{trial.width}{depth}"
    return f"{trial.parametrization}-{size}-{rate}-seed{trial.seed}{further}{stop}"


def settings(trial: Trial) -> dict[str, Any]:
    """What was asked of the trial."""
    named = {
        "parametrization": trial.parametrization, "width": trial.width, "lr": trial.lr,
        "seed": trial.seed, "steps": trial.n_steps, **trial.axes,
    }  # fmt: skip
    return named if trial.depth is None else {**named, "depth": trial.depth}


def outcome(trial: Trial) -> dict[str, float]:
    """What came of it, in numbers; a diverged one has no final loss."""
    numbers = {"final_loss": trial.final_loss, "cost_flops": trial.cost_flops}
    if trial.evaluation is not None:
        numbers["evaluation"] = trial.evaluation
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


class TensorBoard:
    """A run a trial, with its loss curve and its settings as hyperparameters.

    Args:
        folder: Where the event files go; ``tensorboard --logdir`` shows them.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._writer = SummaryWriter
        self._folder = local_path(folder)

    def __call__(self, result: SweepResult, trial: Trial) -> None:
        """Write the trial."""
        writer = self._writer(str(self._folder / run_name(trial)))
        for step, loss in enumerate(trial.losses):
            writer.add_scalar("loss", loss, step)
        ended = {f"result/{name}": value for name, value in outcome(trial).items()}
        writer.add_hparams(settings(trial), ended, run_name=".")
        writer.close()


class WeightsAndBiases:
    """A run a trial, in the group of the sweep's task.

    Args:
        project: The project; further names go to ``wandb.init``.
        **options: Of ``wandb.init``.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self, project: str, **options: Any) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb") from error
        self._wandb: Any = wandb
        self._options = {"project": project, **options}

    def __call__(self, result: SweepResult, trial: Trial) -> None:
        """Write the trial."""
        named = {"group": result.task, "name": run_name(trial), "config": settings(trial)}
        run = self._wandb.init(**{**named, **self._options, "reinit": True})
        for step, loss in enumerate(trial.losses):
            run.log({"loss": loss}, step=step)
        run.summary.update({**outcome(trial), "status": trial.status})
        run.finish(exit_code=int(trial.status == "failed"))


class MLflow:
    """A run a trial, in an experiment.

    Args:
        experiment: Its name.
        tracking_uri: Where the server or the folder is; None: as mlflow is set up.

    Raises:
        MissingExtraError: mlflow is not installed.
    """

    def __init__(self, experiment: str, tracking_uri: str | None = None) -> None:
        try:
            import mlflow  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("mlflow", "mlflow") from error
        self._mlflow: Any = mlflow
        if tracking_uri is not None:
            self._mlflow.set_tracking_uri(tracking_uri)
        self._mlflow.set_experiment(experiment)

    def __call__(self, result: SweepResult, trial: Trial) -> None:
        """Write the trial."""
        with self._mlflow.start_run(run_name=run_name(trial)):
            self._mlflow.log_params({"task": result.task, **settings(trial)})
            self._mlflow.set_tag("status", trial.status)
            for step, loss in enumerate(trial.losses):
                if math.isfinite(loss):  # mlflow's databases refuse others
                    self._mlflow.log_metric("loss", loss, step=step)
            self._mlflow.log_metrics(outcome(trial))
