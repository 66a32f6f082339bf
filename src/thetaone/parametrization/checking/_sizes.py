"""The models that a coordinate check compares: widths, depths, or both together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import nn

from thetaone.errors import InputError, MismatchError, TaskError
from thetaone.parametrization.applying import build_model
from thetaone.parametrization.reading import overlaps
from thetaone.records import DEPTH, WIDTH, Task


@dataclass(frozen=True, slots=True)
class Sizes:
    """The models that are compared, ascending in what grows.

    Attributes:
        task: Builds them.
        widths: One a model, or one for all [features].
        depths: One a model; empty when the task's models have one depth [blocks].
    """

    task: Task
    widths: tuple[int, ...]
    depths: tuple[int, ...] = ()

    @classmethod
    def of(cls, task: Task, widths: Sequence[int], depths: Sequence[int]) -> Self:
        """The models of a request.

        Raises:
            InputError: Fewer than two, a size below 1, or depths that do not go with the widths.
        """
        request = f"widths={list(widths)}" + (f", depths={list(depths)}" if depths else "")
        axis = DEPTH if depths and len(widths) == 1 else WIDTH
        if depths and len(widths) not in (1, len(depths)):
            raise InputError(
                f"{request}: pass one width to compare depths at, or one depth for each width to "
                "let both grow together"
            )
        if min((*widths, *depths), default=0) < 1:
            raise InputError(f"{request}: each must be 1 or more")
        if depths and axis == WIDTH:
            pairs = sorted(set(zip(widths, depths, strict=True)))
            sizes = cls(task, tuple(w for w, _ in pairs), tuple(d for _, d in pairs))
        else:
            sizes = cls(task, tuple(sorted(set(widths))), tuple(sorted(set(depths))))
        if len(set(sizes.values)) < max(2, len(sizes.values)):
            raise InputError(f"{request}: need at least 2 different {axis}s to compare")
        return sizes

    @property
    def axis(self) -> str:
        """What grows; the width when both do."""
        return DEPTH if len(self.widths) == 1 and self.depths else WIDTH

    @property
    def values(self) -> tuple[int, ...]:
        """Its values, ascending."""
        return self.depths if self.axis == DEPTH else self.widths

    def width(self, index: int) -> int:
        """Width of a model."""
        return self.widths[0] if self.axis == DEPTH else self.widths[index]

    def model(self, index: int) -> nn.Module:
        """A model, freshly built."""
        return build_model(
            self.task, self.width(index), self.depths[index] if self.depths else None
        )


def build_models(sizes: Sizes) -> list[nn.Module]:
    """A model of every size.

    Refuses a task whose models are not built anew, or do not depend on their width.

    Raises:
        TaskError: Two calls return models that train the same parameters.
        MismatchError: All shapes are the same.
    """
    smallest = sizes.model(0)
    _check_anew(smallest, sizes.model(0), sizes.width(0))
    models = [smallest, *(sizes.model(index) for index in range(1, len(sizes.values)))]
    small, large = ([tuple(p.shape) for p in models[at].parameters()] for at in (0, -1))
    if sizes.axis == WIDTH and small == large:
        raise MismatchError(
            f"model(width={sizes.values[-1]}) has the same shapes as "
            f"model(width={sizes.values[0]}): the model's width does not change. Make task.model "
            "use its width argument"
        )
    return models


def _check_anew(one: nn.Module, other: nn.Module, width: int) -> None:
    """Trainings of two calls must not go on from each other: what is trained lies apart."""
    trained = {
        f"{call} {name}": parameter
        for call, model in enumerate((one, other))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    for pair in overlaps(trained):
        (first, name), (second, _) = (label.split(" ", 1) for label in pair)
        if first != second:
            raise TaskError(
                f"task.model(width={width}) called twice gives models that train the same {name}, "
                "so that each training goes on where the one before ended: return a fresh model "
                "from every call (no cache, no copy of one model that shares its weights)"
            )
