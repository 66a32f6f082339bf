"""One training: what was asked, what came out, what it cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from thetaone.records._base import Record
from thetaone.records.sweeps._spec import TrialSpec

FINAL_FRACTION = 0.2  # the share of a trial's last steps that its final loss averages

TrialStatus = Literal["finished", "diverged", "failed", "stopped"]
Choose = Literal["loss", "evaluate"]

_FLAT = {  # fields of the spec, as JSON calls them, beside the others
    "width": "width", "depth": "depth", "lr": "lr", "seed": "seed", "n_steps": "n_steps",
    "parametrization": "rule", "axes": "axes", "stop": "stop",
}  # fmt: skip


def final_loss(losses: Sequence[float]) -> float:
    """Mean loss of the last fifth of the steps, at least one: one number for one training.

    The mean over a window carries less batch noise than the last step alone, and trials with the
    same seed see the same batches, so what noise is left is common to all learning rates.

    Args:
        losses: Loss of each step, in order.

    Returns:
        The mean; NaN when there are no losses.

    Examples:
        >>> final_loss([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 2.0, 4.0])
        3.0
    """
    if not losses:
        return math.nan
    tail = losses[-max(1, round(FINAL_FRACTION * len(losses))) :]
    return math.fsum(tail) / len(tail)


class Trial(Record):
    """One training: what was asked, every step's loss, how it ended, what it cost.

    Attributes:
        spec: What was asked; its ``rule`` is ``"mup"``, ``"sp"`` or the label of a recipe.
        losses: Loss of each step before its update; ends early when the training diverged.
        status: ``finished``; ``diverged`` (NaN, inf or exploded: a result, not a crash);
            ``failed`` (an exception or a dead worker); ``stopped`` early by a search.
        reason: Why it diverged, failed or was stopped.
        n_parameters: Parameters trained [count].
        cost_flops: Floating-point operations of the steps done, counted [FLOP].
        wall_seconds: Time spent training; a stacked trial carries its share [s].
        evaluation: The task's ``evaluate`` of the trained model, where that is asked for.
        batches: Digests of batches 1, 2, 4, 8, …: equal for one seed, or the task does not repeat.
    """

    spec: TrialSpec
    losses: tuple[float, ...]
    status: TrialStatus
    reason: str = ""
    n_parameters: int = 0
    cost_flops: float = 0.0
    wall_seconds: float = 0.0
    evaluation: float | None = None
    batches: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _gather_spec(cls, data: Any) -> Any:
        """Accept the fields of the spec by themselves, as JSON has them."""
        if not isinstance(data, Mapping) or "spec" in data:
            return cast(object, data)
        fields = dict(cast(Mapping[str, Any], data))
        fields["spec"] = {new: fields.pop(old) for old, new in _FLAT.items() if old in fields}
        if isinstance(axes := fields["spec"].get("axes"), Mapping):
            fields["spec"]["axes"] = sorted(cast(Mapping[str, Any], axes).items())
        return fields

    @model_serializer(mode="wrap")
    def _stamp(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        spec = fields.pop("spec")
        flat = {old: spec[new] for old, new in _FLAT.items()}
        flat["axes"] = dict(flat["axes"])
        return {"record": type(self).__name__, "version": self.version, **flat, **fields}

    @property
    def width(self) -> int:
        """Width of the model."""
        return self.spec.width

    @property
    def depth(self) -> int | None:
        """Depth of the model; None when the task's model takes none."""
        return self.spec.depth

    @property
    def axes(self) -> dict[str, float]:
        """Values of the axes beside width, depth, rate and seed."""
        return dict(self.spec.axes)

    @property
    def lr(self) -> float:
        """Learning rate, as given at the base width."""
        return self.spec.lr

    @property
    def seed(self) -> int:
        """Seed of the initialization and of the batches."""
        return self.spec.seed

    @property
    def n_steps(self) -> int:
        """Steps asked for [count]."""
        return self.spec.n_steps

    @property
    def parametrization(self) -> str:
        """``"mup"``, ``"sp"`` or the label of a recipe."""
        return self.spec.rule

    @property
    def final_loss(self) -> float:
        """Mean of the last fifth of the losses; inf when diverged, NaN when failed or stopped."""
        if self.status == "diverged":
            return math.inf
        return final_loss(self.losses) if self.status == "finished" else math.nan

    def score(self, choose: Choose = "loss") -> float:
        """What trials are compared by: the final loss, or the evaluation of the trained model."""
        if choose == "loss" or self.status != "finished":
            return self.final_loss
        if self.evaluation is None:
            return math.nan
        return math.inf if math.isnan(self.evaluation) else self.evaluation
