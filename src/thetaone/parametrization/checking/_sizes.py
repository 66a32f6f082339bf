"""The models that a coordinate check compares: widths, depths, or both together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import nn

from thetaone.errors import InputError, MismatchError
from thetaone.parametrization.applying import build_model
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


def check_sizes(sizes: Sizes) -> None:
    """Refuse a task whose model does not depend on its width.

    Raises:
        MismatchError: All shapes are the same.
    """
    if sizes.axis == DEPTH:
        return
    ends = (0, len(sizes.values) - 1)
    small, large = ([tuple(p.shape) for p in sizes.model(i).parameters()] for i in ends)
    if small == large:
        raise MismatchError(
            f"model(width={sizes.values[-1]}) has the same shapes as "
            f"model(width={sizes.values[0]}): the model's width does not change. Make task.model "
            "use its width argument"
        )
