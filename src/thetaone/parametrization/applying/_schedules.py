"""Learning-rate schedules keep the prescribed ratios, or are named when they do not."""

import warnings
from typing import Any

import torch

_RELATIVE = 1e-3


class FlattenedRatiosWarning(UserWarning):
    """A schedule gave groups learning rates that are not in the prescribed ratio."""


def per_group(optimizer: torch.optim.Optimizer, value: float) -> list[float]:
    """A value for the base width as the list that some schedulers want, one entry a group.

    For ``OneCycleLR(max_lr=…)``, ``CyclicLR(base_lr=…)`` or ``ReduceLROnPlateau(min_lr=…)``.

    Args:
        optimizer: From ``parametrize``.
        value: A learning rate at the base width.

    Returns:
        ``value`` times each group's factor.

    Examples:
        >>> import thetaone as t1
        >>> wide, narrow = torch.nn.Linear(64, 64), torch.nn.Linear(16, 16)
        >>> adam = t1.parametrize(wide, base=narrow, optimizer=torch.optim.Adam, lr=0.1)
        >>> per_group(adam, 1.0)
        [0.25, 1.0]
    """
    return [value * group.get("lr_factor", 1.0) for group in optimizer.param_groups]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the base width; every group gets it times its factor.

    What ``for group in optimizer.param_groups: group["lr"] = lr`` is in a loop written by hand.
    A rate that is a tensor is written in place, as captured graphs need it.

    Args:
        optimizer: From ``parametrize``.
        lr: A learning rate at the base width.

    Examples:
        >>> import thetaone as t1
        >>> wide, narrow = torch.nn.Linear(64, 64), torch.nn.Linear(16, 16)
        >>> adam = t1.parametrize(wide, base=narrow, optimizer=torch.optim.Adam, lr=0.1)
        >>> set_lr(adam, 1.0)
        >>> [group["lr"] for group in adam.param_groups]
        [0.25, 1.0]
    """
    for group, rate in zip(optimizer.param_groups, per_group(optimizer, lr), strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def guard_ratios(optimizer: torch.optim.Optimizer) -> None:
    """Warn once, before a step, when the groups' rates have left the prescribed ratio."""
    if len({group["lr_factor"] for group in optimizer.param_groups}) > 1:
        rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        optimizer.register_step_pre_hook(_RatioGuard(rates))


class _RatioGuard:
    """Step pre-hook; a class so that an optimizer with it can be pickled."""

    watches_only = True  # changes no step: a stack of models may leave it out

    def __init__(self, prescribed: tuple[float, ...]) -> None:
        self.prescribed = prescribed
        self.last: tuple[float, ...] = ()
        self.steps = 0
        self.warned = False

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Compare rate / prescribed rate over the groups; only when a rate changed."""
        self.steps += 1
        rates = self._read([group["lr"] for group in optimizer.param_groups])
        if self.warned or not rates or rates == self.last:
            return
        self.last = rates
        ratios = [r / p for r, p in zip(rates, self.prescribed, strict=False) if p > 0]
        if max(ratios) - min(ratios) <= _RELATIVE * max(ratios):
            return
        self.warned = True  # once: what a schedule does, it does at every step
        warnings.warn(
            f"learning rates {[f'{r:.3g}' for r in rates]} are not in the prescribed ratio "
            f"{[f'{p:.3g}' for p in self.prescribed]}: a loop wrote one rate into every group "
            '(write group["lr"] = lr * group["lr_factor"], or t1.set_lr(optimizer, lr)), or a '
            "scheduler did (OneCycleLR, CyclicLR, an eta_min or min_lr: give it the list "
            "t1.per_group(optimizer, value); where it takes one number only, leave that at 0 or "
            "use LambdaLR, which multiplies)",
            FlattenedRatiosWarning,
            stacklevel=3,
        )

    def _read(self, rates: list[Any]) -> tuple[float, ...]:
        """The rates as numbers; on an accelerator, where reading waits, seldom."""
        away = any(isinstance(rate, torch.Tensor) and rate.device.type != "cpu" for rate in rates)
        if away and (self.steps & (self.steps - 1) or torch.cuda.is_current_stream_capturing()):
            return ()
        return tuple(float(rate) for rate in rates)
