"""f, with everything that must be checked about what a user's f returns."""

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from thetaone.errors import EstimatorError
from thetaone.estimators.distributions import HostChecks


class Integrand:
    """A user's f, evaluated on a leading dimension of samples.

    Counts evaluations, evaluates one sample at a time when f is not vectorised, evaluates in chunks
    when a byte limit is set (recomputing each chunk in the backward pass, so that what f keeps for
    its backward is bounded too), and refuses what would silently broadcast or spread NaN; the
    latter when its ``checks`` are settled.

    Args:
        f: Takes samples ``[n, *batch_shape, *event_shape]`` and returns ``[n]``, or
            ``[n, *batch_shape[:k]]`` for as many separate expectations. With ``vectorized=False``
            it takes one sample and returns what follows ``n``. It may return numpy or a number.
        distribution: Whose samples f takes.
        vectorized: Whether f takes many samples at once.
        max_bytes: Most bytes of samples handed to f at once; ``None`` for no limit [bytes].
    """

    def __init__(
        self,
        f: Callable[..., Any],
        distribution: Distribution,
        *,
        vectorized: bool = True,
        max_bytes: int | None = None,
    ) -> None:
        self.f = f
        self.batch_shape = tuple(distribution.batch_shape)
        self.vectorized = vectorized
        self.max_bytes = max_bytes
        self.evaluations = 0
        self.checks = HostChecks()

    def __call__(self, x: Tensor, *, allow_minus_inf: bool = False) -> Tensor:
        """Values of f, ``[n, *lead]``, floating point.

        Args:
            x: Samples.
            allow_minus_inf: Whether −inf is a value like others: the logarithm of a weight of 0.

        Raises:
            EstimatorError: The wrong shape; when the checks are settled, NaN or inf among values.
        """
        n = x.shape[0]
        rows = self._rows_at_once(x)
        if rows >= n:
            values = self._evaluate(x)
        else:
            pieces = [self._piece(piece) for piece in x.split(rows)]
            values = torch.cat(pieces)
        self.evaluations += n
        finite = values.masked_fill(values == -inf, 0) if allow_minus_inf else values
        self.checks.add_finite(finite, partial(_refuse_not_finite, values, x, allow_minus_inf))
        return values

    def lead(self, values: Tensor) -> int:
        """How many batch dimensions f keeps apart [count]."""
        return values.dim() - 1

    def _rows_at_once(self, x: Tensor) -> int:
        if self.max_bytes is None or x.shape[0] == 0:
            return x.shape[0]
        row_bytes = x[0].numel() * x.element_size()
        if row_bytes > self.max_bytes:
            raise EstimatorError(
                f"max_bytes={self.max_bytes:,}: one sample takes {row_bytes:,} bytes. "
                f"Pass max_bytes>={row_bytes}"
            )
        return self.max_bytes // row_bytes

    def _piece(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._evaluate(x)
        values: Any = checkpoint(self._evaluate, x, use_reentrant=False)
        return values

    def _evaluate(self, x: Tensor) -> Tensor:
        if self.vectorized:
            version = x._version
            values = _as_tensor(self.f(x), x)
            self._check_shape(values, x.shape[0])
            if x._version != version:
                raise EstimatorError(
                    "f changes its samples in place, so that their score would be that of other "
                    "points: take x * 2 for x.mul_(2), or x = x.clone() first"
                )
        else:
            values = torch.stack([_as_tensor(self.f(row), x) for row in x])
            self._check_shape(values, x.shape[0])
        if not values.is_floating_point():
            values = values.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
        return values

    def _check_shape(self, values: Tensor, n: int) -> None:
        lead = tuple(values.shape[1:])
        if values.dim() and values.shape[0] == n and lead == self.batch_shape[: len(lead)]:
            return
        expected = f"({n},)"
        if self.batch_shape:
            expected += (
                f" or, for {self.batch_shape} separate expectations, {(n, *self.batch_shape)}"
            )
        raise EstimatorError(
            f"f returned shape {tuple(values.shape)} for {n} samples; expected {expected}. "
            "Sum or squeeze what is left over (values of shape (n, 1) would broadcast silently); "
            "if f takes one sample at a time, pass vectorized=False"
        )


def _as_tensor(values: Any, x: Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return torch.as_tensor(values, dtype=dtype, device=x.device)


def _refuse_not_finite(values: Tensor, x: Tensor, allow_minus_inf: bool) -> None:
    finite = torch.isfinite(values)
    if allow_minus_inf:
        finite |= values == -inf
    if bool(finite.all()):
        return
    bad = (~finite).flatten(1).any(1) if values.dim() > 1 else ~finite
    first = int(bad.nonzero()[0, 0])
    sample = x[first].detach().flatten()[:4].tolist()
    raise EstimatorError(
        f"f returned NaN or inf for {int(bad.sum())} of {values.shape[0]} samples, first for "
        f"sample {first}, which starts with {sample}: one such value spoils the whole gradient. "
        "Make f finite there (clamp its argument, or work with logarithms)"
    )
