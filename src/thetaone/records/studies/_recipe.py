"""The answer of a transfer, in one file: how to train the target, anywhere."""

import hashlib
import importlib
import json
import math
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, JsonValue

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._training import TrainingLoop
from thetaone.records._words import interval_words
from thetaone.records.parametrization import Prescription
from thetaone.records.rematerialization import Schedule
from thetaone.records.studies._snippets import snippet


class OptimizerChoice(Record):
    """An optimizer and the options of its constructor.

    Attributes:
        name: In ``torch.optim`` (or ``pytorch_optimizer``), or ``module:class``.
        options: Keyword arguments of the constructor, but for the learning rate.
    """

    name: str
    options: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class GroupRate(Record):
    """One parameter group of the target's optimizer, in absolute numbers.

    Attributes:
        optimizer: Class that steps the group.
        lr: Learning rate.
        options: What else the group is stepped with: decay, ε, β, momentum.
        n_parameters: Entries [count].
        parameters: Names, ``*`` for a block's number.
    """

    optimizer: str
    lr: float
    options: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    n_parameters: int
    parameters: tuple[str, ...]


class Recipe(Record):
    """How to train the target: optimizer, rate, prescription, schedule, memory schedule.

    ``optimizer``, ``scheduler`` and ``rematerialize`` act on a model; like ``plot`` they look up
    what acts when they are called, so that records import no torch.

    Attributes:
        task: Name of the task.
        reference: Bundled name, dotted module or path of the task; None for an object.
        width: Of the target.
        depth: Of the target; None where the task has one depth.
        seed: Of its initialization and batches.
        n_steps: Steps of its training [count].
        lr: Learning rate at ``base_width``: the target's own where that is its width.
        lr_interval: 95 % interval of the rate.
        base_width: Width at which nothing is rescaled.
        optimizers: Role of a parameter to optimizer; ``rest`` alone when one steps all.
        prescription: What every parameter of the target gets: multipliers, decay and depth too.
        groups: Parameter groups of the target's optimizer, in absolute numbers.
        loop: Schedule, clipping, precision, accumulation.
        memory: Schedule of the target's blocks; None keeps every activation.
        measured_on: What the rate was tuned on: widths, seeds, steps, versions.
    """

    acts: ClassVar[str] = "thetaone.studies"

    task: str
    reference: str | None = None
    width: int = Field(ge=1)
    depth: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, le=2**53)
    n_steps: int = Field(ge=1)
    lr: float = Field(gt=0, allow_inf_nan=False)
    lr_interval: tuple[float, float]
    base_width: int = Field(ge=1)
    optimizers: dict[str, OptimizerChoice]
    prescription: Prescription
    groups: tuple[GroupRate, ...] = ()
    loop: TrainingLoop = Field(default_factory=TrainingLoop)
    memory: Schedule | None = None
    measured_on: dict[str, str] = Field(default_factory=dict[str, str])

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe that ``transfer`` wrote.

        Raises:
            RecordError: No such file, or not a recipe.
        """
        return cls.from_json(path)

    def optimizer(self, model: Any) -> Any:
        """The optimizer of a freshly initialized model of this recipe's width.

        Initial values are rescaled in place where the recipe was made for another base width than
        the model's; else the model is left as it is.

        Raises:
            MismatchError: The model is another one; names the first parameter that differs.
        """
        return self._act("recipe_optimizer", model)

    def scheduler(self, optimizer: Any) -> Any:
        """A ``torch.optim.lr_scheduler`` of the recipe's schedule; step it once a step."""
        return self._act("recipe_scheduler", optimizer)

    def optimizer_and_scheduler(self, model: Any) -> tuple[Any, Any]:
        """Optimizer and scheduler of a fresh model, as ``Trainer(optimizers=...)`` takes them.

        For Hugging Face's ``Trainer`` and what is built on it, such as TRL's ``SFTTrainer``.

        Raises:
            MismatchError: The model is another one; names the first parameter that differs.
        """
        optimizer = self.optimizer(model)
        return optimizer, self.scheduler(optimizer)

    def configure_optimizers(self, model: Any) -> dict[str, Any]:
        """What ``LightningModule.configure_optimizers`` returns: stepped once a step.

        Args:
            model: Of the task; where a Lightning module holds it as ``self.model``, that.

        Raises:
            MismatchError: The model is another one; names the first parameter that differs.
        """
        optimizer, scheduler = self.optimizer_and_scheduler(model)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def rematerialize(self, model: Any, sample: Any = None) -> Any:
        """The model under the recipe's memory schedule; the model itself when there is none.

        Args:
            model: Of this recipe's width, on the device where it is trained.
            sample: Inputs of a forward pass, when they differ from those that were planned for:
                the memory is then planned anew, within the same budget.

        Raises:
            ScheduleError: The schedule is not this model's.
        """
        return self._act("recipe_rematerialize", model, sample)

    @property
    def plain(self) -> bool:
        """Whether the target is plain PyTorch: one optimizer at one rate, values untouched."""
        rules = self.prescription.rules
        factors = [(r.init_factor, r.lr_factor, r.decay_factor, r.eps_factor) for r in rules]
        return (
            set(factors) <= {(1.0, 1.0, 1.0, 1.0)}
            and len(self.optimizers) == 1
            and not self.prescription.outputs
            and all(rule.multiplier == 1.0 for rule in rules)
        )

    @property
    def fingerprint(self) -> str:
        """Hash of all that the training depends on: a checkpoint of another recipe is refused."""
        fields = self.model_dump(mode="json", exclude={"groups", "measured_on", "lr_interval"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def snippet(self, trainer: str = "loop", path: str = "out/recipe.json") -> str:
        """Code to paste that trains by this recipe.

        Args:
            trainer: ``"loop"``, ``"transformers"``, ``"lightning"`` or ``"fsdp"``.
            path: Where the recipe is.

        Raises:
            InputError: Another trainer.
        """
        return snippet(
            self.loop, trainer, path, n_steps=self.n_steps, rematerialized=self.memory is not None
        )

    def _act(self, function: str, *arguments: Any) -> Any:
        return getattr(importlib.import_module(self.acts), function)(self, *arguments)

    def __str__(self) -> str:
        low, high = self.lr_interval
        ends = interval_words(low or -math.inf, high, ".3g")
        head = f"{self.task}, width {self.width}: learning rate {self.lr:.4g}, {ends}"
        columns = ("optimizer", "learning rate", "entries", "options", "parameters")
        rows = [
            (
                group.optimizer, f"{group.lr:.4g}", f"{group.n_parameters:,}",
                ", ".join(f"{name} {value}" for name, value in group.options.items()),
                ", ".join(group.parameters),
            )
            for group in self.groups
        ]  # fmt: skip
        return "\n".join([head, text_table(columns, rows), "", self.snippet()])
