"""Lightning: a callback that watches every layer while a real training runs.

Nothing is needed for the parametrization itself: ``configure_optimizers`` of any module returns
what ``t1.parametrize`` returns.
"""

from typing import Any

from thetaone.errors import InputError, MissingExtraError
from thetaone.integrations._readings import as_metrics, fresh_readings
from thetaone.parametrization import SpectralMonitor
from thetaone.records import SpectralReading

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingExtraError("lightning", "lightning") from error


class SpectralCallback(Callback):
    """Logs weight norm, update norm and alignment of every layer, and warns of faults.

    Metrics are ``spectral/<layer>/<quantity>`` in the trainer's loggers. A layer without an update,
    or whose norm is not finite or has grown ``limit``-fold, is named by a ``LayerFaultWarning``.

    Args:
        every: Steps between readings [count].
        limit: A weight norm this many times its first reading counts as exploding.

    Attributes:
        readings: All readings so far.

    Examples:
        >>> SpectralCallback(every=50).readings
        []
    """

    def __init__(self, *, every: int = 200, limit: float = 10.0) -> None:
        self.every, self.limit = every, limit
        self.readings: list[SpectralReading] = []
        self._monitor: SpectralMonitor | None = None
        self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach the monitor to the module and its optimizer.

        Raises:
            InputError: The module has several optimizers.
        """
        if len(trainer.optimizers) != 1:
            raise InputError(
                f"configure_optimizers returned {len(trainer.optimizers)} optimizers and the "
                "monitor reads the step of one: return one, e.g. t1.parametrize with a mapping of "
                "roles to classes"
            )
        self._monitor = SpectralMonitor(
            pl_module, trainer.optimizers[0], every=self.every, limit=self.limit
        )
        self.readings = self._monitor.readings
        self._seen = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what was read in this step, if anything."""
        if self._monitor is None or len(self.readings) == self._seen:
            return
        fresh = fresh_readings(self._monitor, self._seen)
        self._seen = len(self.readings)
        for logger in trainer.loggers:
            logger.log_metrics(as_metrics(fresh), step=trainer.global_step)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove every hook, also after an exception."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
