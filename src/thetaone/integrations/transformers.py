"""Hugging Face ``Trainer``: the optimizer it steps, made from its own arguments, and a monitor."""

from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, MissingExtraError, UnknownOptimizerError
from thetaone.integrations._readings import as_metrics, fresh_readings
from thetaone.parametrization import Base, SpectralMonitor, parametrize
from thetaone.records import SpectralReading

try:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ImportError as error:
    raise MissingExtraError("transformers", "transformers") from error


def trainer_optimizers(
    model: nn.Module, args: TrainingArguments, *, base: Base, **options: Any
) -> tuple[torch.optim.Optimizer, None]:
    """What ``Trainer(optimizers=…)`` wants: the optimizer that its arguments name, parametrized.

    Class, learning rate (at the base width), weight decay, betas and ε come from ``args``, as in
    ``Trainer`` itself, which also makes the schedule: every kind that ``args`` can name multiplies,
    and so keeps the prescribed ratios. What ``Trainer`` does not decay (it goes by names: biases
    and norms) is not decayed, unless ``decay_vectors`` is among the options; at the base width
    training is bit for bit what ``Trainer`` does by itself.

    Args:
        model: Freshly initialized; its values are rescaled in place.
        args: Of the trainer.
        base: See ``t1.prescribe``.
        **options: Of ``t1.parametrize``; ``optimizer=`` and options of it override ``args``.

    Returns:
        ``(optimizer, None)``; ``None`` leaves the schedule to the trainer.

    Raises:
        PrescriptionError: See ``t1.parametrize``; the model is untouched.
        UnknownOptimizerError: ``args`` name transformers' own Adafactor, whose update is not
            relative to the weights as that of ``torch.optim.Adafactor`` is.

    Examples:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> def gpt2(width):
        ...     return GPT2LMHeadModel(
        ...         GPT2Config(n_embd=width, n_head=width // 16, n_layer=1, vocab_size=100)
        ...     )
        >>> args = TrainingArguments(learning_rate=0.5, optim="adamw_torch", use_cpu=True)
        >>> optimizer, _ = trainer_optimizers(gpt2(64), args, base=gpt2(32))
        >>> sorted({group["lr"] for group in optimizer.param_groups})
        [0.25, 0.5]
    """
    cls, defaults = Trainer.get_optimizer_cls_and_kwargs(args)
    if cls.__name__ == "Adafactor" and "optimizer" not in options:
        raise UnknownOptimizerError(
            f"optim={str(args.optim)!r} is transformers' own Adafactor, whose update has no rule "
            "here: pass optimizer=torch.optim.Adafactor to trainer_optimizers"
        )
    defaults = {"optimizer": cls, "weight_decay": args.weight_decay, **defaults}
    if "optimizer" in options:  # another class has other options; rate and decay are all classes'
        defaults = {key: defaults[key] for key in ("lr", "weight_decay")}
    optimizer = parametrize(model, base=base, **{**defaults, **options})
    if "decay_vectors" not in options:
        _leave_undecayed(model, optimizer)
    return optimizer, None


def _leave_undecayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take out of the decay what ``Trainer`` leaves out, in groups of their own."""
    trainer: Any = None  # the method asks nothing of it
    decayed = set(Trainer.get_decay_parameter_names(trainer, model))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in list(optimizer.param_groups):
        free = [p for p in group["params"] if names[id(p)] not in decayed]
        if not free or not group.get("weight_decay"):
            continue
        if len(free) == len(group["params"]):
            group["weight_decay"] = 0.0
            continue
        group["params"] = [p for p in group["params"] if names[id(p)] in decayed]
        optimizer.add_param_group({**group, "params": free, "weight_decay": 0.0})


class SpectralCallback(TrainerCallback):
    """Reads weight norm, update norm and alignment of every layer, and warns of faults.

    Readings join the trainer's next log as ``spectral/<layer>/<quantity>``.
    A layer without an update, or whose norm is not finite or has grown ``limit``-fold, is named by
    a ``LayerFaultWarning``.

    Args:
        every: Steps between readings [count].
        limit: A weight norm this many times its first reading counts as exploding.

    Attributes:
        readings: All readings so far.
    """

    def __init__(self, *, every: int = 200, limit: float = 10.0) -> None:
        self.every, self.limit = every, limit
        self.readings: list[SpectralReading] = []
        self._monitor: SpectralMonitor | None = None
        self._seen = self._logged = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach the monitor to the model and its optimizer.

        Raises:
            InputError: The trainer has no optimizer of its own to watch (DeepSpeed has).
        """
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])  # accelerate's
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(
                f"the trainer's optimizer is {type(optimizer).__name__}, not a torch.optim one: "
                "its steps cannot be read. Leave the callback out"
            )
        self._monitor = SpectralMonitor(
            kwargs["model"], optimizer, every=self.every, limit=self.limit
        )
        self.readings = self._monitor.readings
        self._seen = self._logged = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Warn of what was read in this step, if anything."""
        if self._monitor is not None:
            fresh_readings(self._monitor, self._seen)
            self._seen = len(self.readings)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add what was read since the last log to what the callbacks after this one write."""
        kwargs["logs"].update(as_metrics(self.readings[self._logged :]))
        self._logged = len(self.readings)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove every hook."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
