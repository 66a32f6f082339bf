"""Surrogates whose second derivative would be wrong refuse to give one."""

from typing import Any

import torch
from torch import Tensor

from thetaone.errors import EstimatorError


def once_only(rows: Tensor, tensors: list[Tensor], estimator: str) -> Tensor:
    """The same rows; their gradient cannot be differentiated again with respect to ``tensors``.

    A surrogate of first order has the right gradient and silently wrong higher derivatives.

    Args:
        rows: A surrogate.
        tensors: What the distribution is made of.
        estimator: Its name, for the message.
    """
    tensors = [tensor for tensor in tensors if tensor.requires_grad]
    if not rows.requires_grad or not tensors:
        return rows
    guarded: Any = _Once.apply(rows, estimator, *tensors)
    return guarded


class _Once(torch.autograd.Function):
    """Identity. The gradients it passes back carry a node that raises when differentiated.

    That of ``rows`` and those of ``tensors``: what lies between them may cut a graph in silence.
    Its context is set up apart from its forward: ``torch.func`` asks for that.
    """

    @staticmethod
    def forward(rows: Tensor, estimator: str, *tensors: Tensor) -> Tensor:
        return rows.view_as(rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.estimator, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grads
        if not torch.is_grad_enabled():
            return gradient, None, *(None for _ in ctx.saved_tensors)
        passed: list[Tensor | None] = []
        for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[2:], strict=True):
            zero: Any = _Refuse.apply(tensor, ctx.estimator)
            gradient = gradient + zero
            passed.append(zero.expand_as(tensor) if needed else None)
        return gradient, None, *passed


class _Refuse(torch.autograd.Function):
    """A zero that depends on a tensor only to raise when someone asks how."""

    @staticmethod
    def forward(tensor: Tensor, estimator: str) -> Tensor:
        return tensor.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.estimator = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise EstimatorError(
            f"{ctx.estimator} defines first derivatives only; its second would be wrong. "
            "Use ScoreFunction(), LeaveOneOut(), Enumeration() or an explicit Pathwise() for "
            "higher orders"
        )
