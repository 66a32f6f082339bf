"""RMS of vectors, and the norm it induces on matrices and convolution kernels.

``‖x‖_RMS = ‖x‖₂ / √dim`` and ``‖A‖_RMS→RMS = max ‖Ax‖_RMS / ‖x‖_RMS = √(n_in / n_out) · ‖A‖₂``.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from torch import Tensor

from thetaone.errors import InputError

EXACT_SIDE = 192  # up to this smaller side an exact decomposition is as fast as the iteration
FAILURE_PROBABILITY = 1e-3  # of a random start too poor for the bound that stops the iteration
FIRST_LOOK = 4  # iterations before the first look at the bound, which foretells the next
BLOCK_ENTRIES = 2**17  # 512 KB of float32: stays in the cache between the two products

Array = NDArray[np.float64]


def rms(x: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Root mean square over ``dim``: ``‖x‖₂ / √size``. Differentiable; 1 for entries of size 1.

    Args:
        x: Floating-point or complex tensor.
        dim: Axis or axes that are averaged away.

    Raises:
        InputError: Integers (their mean is not one of them) or nothing to average.

    Examples:
        >>> rms(torch.tensor([3.0, 4.0, 0.0, 0.0]))
        tensor(2.5000)
    """
    _check_float(x, "x")
    axes = (dim,) if isinstance(dim, int) else dim
    size = math.prod(x.shape[axis] for axis in axes)
    if size == 0:
        raise InputError(f"x has shape {tuple(x.shape)}: nothing to average over dim={dim}")
    return torch.linalg.vector_norm(x, dim=dim) / math.sqrt(size)


def rms_operator_norm(w: Tensor, tolerance: float = 1e-3, *, batched: bool = False) -> Tensor:
    """Induced RMS→RMS norm ``√(n_in/n_out) · ‖W‖₂`` of a matrix or a convolution kernel.

    A kernel (out, in, k…) is read as the map from one receptive field (in · ∏k numbers) to one
    output position: the flattened matrix, n_in = in · ∏k, the fan-in. It needs nothing but the
    weight, and it bounds the whole convolution from above: with stride 1 and circular (or zero)
    padding the mean square over receptive fields is (at most) that of the image. The norm of the
    whole convolution on a given grid is ``circular_convolution_norm``.

    Lanczos iteration on ``WᵀW`` with full reorthogonalization, from a fixed random start. It stops
    when the Lanczos polynomial p_k proves the relative error: Σ γᵢ² p_k(σᵢ²)² = 1 with γ the start
    in the singular basis, so ``|γ₁| p_k(σ₁²) ≤ 1``; unless |γ₁| < δ, of probability 1e-3 over
    starts, σ₁² lies below the point where p_k = 1/δ. No gap is assumed, so a clustered top
    (Gaussian matrices) cannot stop it early. Up to a smaller side of 192 it is exact instead.

    Args:
        w: Weight (out, in) or (out, in, k…); with ``batched`` any stack (…, out, in) of matrices.
            Half precisions are computed in float32. No gradient flows.
        tolerance: Bound on the relative error, in (0, 1); the iteration only errs downwards.
        batched: Leading axes count matrices, not channels.

    Returns:
        Norm ≥ 0: a scalar, or one a matrix of the stack.

    Raises:
        InputError: Fewer than two axes, no entries, integers, or an entry that is not finite.

    Source: bound of M. Hochstenbach, "Probabilistic upper bounds for the matrix two-norm", J. Sci.
        Comput. 57 (2013), section 3, with the start uniform on the sphere.

    Examples:
        >>> float(rms_operator_norm(3 * torch.eye(5)))
        3.0
        >>> round(float(rms_operator_norm(torch.ones(4, 9, 2, 2))), 4)  # fan-in 9·2·2, all aligned
        36.0
    """
    matrices, scale = _as_matrices(w, tolerance, batched)
    n_out, n_in = matrices.shape[-2:]
    if min(n_out, n_in) <= EXACT_SIDE:
        largest = _exact_norm(matrices, squares=not batched and 1e-9 < scale < 1e9)
    else:
        stack = matrices.reshape(-1, n_out, n_in).unbind()
        scales = [scale] if len(stack) == 1 else [_largest_entry(matrix) for matrix in stack]
        norms = [_lanczos_norm(*pair, tolerance) for pair in zip(stack, scales, strict=True)]
        largest = matrices.new_tensor(norms).reshape(matrices.shape[:-2])
    return largest * math.sqrt(n_in / n_out)


def circular_convolution_norm(w: Tensor, grid: Sequence[int]) -> Tensor:
    """Exact RMS→RMS norm of a whole stride-1 convolution with circular padding on ``grid``.

    The Fourier transform makes it block diagonal: ``√(in/out) · max_f ‖K̂(f)‖₂`` over frequencies.

    Args:
        w: Kernel (out, in, k…), real.
        grid: Size of the image along each axis of the kernel, at least the kernel's own.

    Raises:
        InputError: No kernel, a grid of another dimension, or a grid smaller than the kernel.

    Examples:
        >>> float(circular_convolution_norm(torch.ones(1, 1, 3), [8]))
        3.0
    """
    kernel = w.shape[2:]
    _check_entries(w)
    if (
        w.dim() < 3
        or len(grid) != len(kernel)
        or any(n < k for n, k in zip(grid, kernel, strict=True))
    ):
        raise InputError(
            f"grid={list(grid)} for a kernel of shape {tuple(w.shape)}: "
            "pass one size per kernel axis, none smaller than the kernel"
        )
    transform = torch.fft.fftn(_at_least_float32(w), s=list(grid), dim=tuple(range(2, w.dim())))
    blocks = transform.flatten(2).permute(2, 0, 1)
    return torch.linalg.svdvals(blocks).amax() * math.sqrt(w.shape[1] / w.shape[0])


def _exact_norm(matrices: Tensor, *, squares: bool) -> Tensor:
    """Largest singular value; the eigenvalues of ``W Wᵀ`` are the faster way where squares fit."""
    if not squares:
        return torch.linalg.svdvals(matrices)[..., 0]
    short = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    return torch.linalg.eigvalsh(short @ short.mT)[..., -1].clamp(min=0).sqrt()


def _lanczos_norm(matrix: Tensor, scale: float, tolerance: float) -> float:
    """Largest singular value, at most ``tolerance`` (relative) too small.

    Args:
        matrix: Finite.
        scale: Its largest entry in size.
        tolerance: Bound on the relative error.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    if scale == 0:
        return 0.0
    if not 1e-9 < scale < 1e9:  # squares of smaller or larger entries leave the range of float32
        return scale * _lanczos_norm(tall / scale, 1.0, tolerance)
    n = tall.shape[1]
    start = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = tall.new_empty(min(n, 64), n)
    basis[0] = (start / start.norm()).to(tall)
    diagonal, residuals = list[float](), list[float]()
    look = FIRST_LOOK
    for k in range(1, n + 1):
        fresh = _gram_times(tall, basis[k - 1])
        diagonal.append(float(fresh @ basis[k - 1]))
        for _ in range(2):  # once is not enough in floating point, twice is
            fresh -= (basis[:k] @ fresh) @ basis[:k]
        residuals.append(float(fresh.norm()))
        exhausted = k == n or residuals[-1] <= 8 * torch.finfo(tall.dtype).eps * max(diagonal)
        if exhausted or k == look:
            top, proved = _top_ritz_value(np.array(diagonal), np.array(residuals), n, tolerance)
            if exhausted or proved >= 1:
                return math.sqrt(top)
            look = max(k + 1, math.ceil(k / max(proved, 0.5)))  # at most twice as far
        if k == len(basis):
            basis = torch.cat([basis, tall.new_empty(min(k, n - k), n)])
        basis[k] = fresh / residuals[-1]
    raise AssertionError("unreachable: the iteration is exhausted at k = n")


def _gram_times(tall: Tensor, v: Tensor) -> Tensor:
    """``WᵀW v``; a block of rows of W serves both products while it is in the cache."""
    total = torch.zeros_like(v)
    for rows in tall.split(max(1, BLOCK_ENTRIES // tall.shape[1])):
        total.addmv_(rows.T, rows @ v)
    return total


def _top_ritz_value(
    diagonal: Array, residuals: Array, n: int, tolerance: float
) -> tuple[float, float]:
    """Largest Ritz value θ, and how far θ / (1 − tolerance)² is proved to bound σ₁²: 1 is proved.

    It is when p_k exceeds 1/δ there: log p_k(x) = Σ log(x − θᵢ) − Σ log βᵢ. For a start uniform on
    the sphere, |γ₁| < δ has probability at most δ √(2n/π). The logarithm grows about as k, so its
    share of log 1/δ foretells the k that is enough.
    """
    values: Array = np.asarray(eigvalsh_tridiagonal(diagonal, residuals[:-1]))
    top = max(float(values[-1]), 0.0)
    bound = top / (1 - tolerance) ** 2
    if residuals.min() <= 0 or bound <= top:
        return top, 0.0
    needed = -math.log(FAILURE_PROBABILITY * math.sqrt(math.pi / (2 * n)))
    grown = np.log(bound - values).sum() - np.log(residuals).sum()
    return top, float(grown / needed)


def _as_matrices(w: Tensor, tolerance: float, batched: bool) -> tuple[Tensor, float]:
    """The matrices of ``w``, and its largest entry in size."""
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance={tolerance}: a relative error lies between 0 and 1, e.g. 1e-3")
    scale = _check_entries(w)
    if w.dim() < 2:
        raise InputError(
            f"w has shape {tuple(w.shape)}: an operator norm needs (out, in) or (out, in, k…); "
            "for a vector of gains use w.abs().max()"
        )
    w = _at_least_float32(w)
    return w if batched else w.flatten(1), scale


def _at_least_float32(w: Tensor) -> Tensor:
    w = w.detach()
    return w.float() if w.dtype in (torch.float16, torch.bfloat16) else w


def _largest_entry(w: Tensor) -> float:
    """Largest entry in size; NaN passes on. One read, where ``isfinite`` would write a mask."""
    return float(torch.stack(torch.aminmax(w.detach())).abs().amax())


def _check_entries(w: Tensor) -> float:
    """Refuse what has no norm; the largest entry in size."""
    _check_float(w, "w")
    if w.is_complex():
        raise InputError(f"w holds {w.dtype}: the norm is computed for real weights only")
    if w.numel() == 0:
        raise InputError(f"w has shape {tuple(w.shape)}: an empty matrix has no norm")
    largest = _largest_entry(w)
    if not math.isfinite(largest):
        count = int((~w.isfinite()).sum())
        raise InputError(
            f"w of shape {tuple(w.shape)} has {count} entries that are not finite: "
            "its norm does not exist; look for the step at which training diverged"
        )
    return largest


def _check_float(x: Tensor, name: str) -> None:
    if not (x.is_floating_point() or x.is_complex()):
        raise InputError(
            f"{name} holds {x.dtype}: pass floating-point numbers, e.g. {name}.float()"
        )
