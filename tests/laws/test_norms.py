"""The induced RMS→RMS norm against exact decompositions and operators written out in full."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from thetaone.errors import InputError
from thetaone.laws import circular_convolution_norm, rms, rms_operator_norm


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_spectrum(values: Tensor, rows: int, columns: int) -> Tensor:
    k = len(values)
    left = torch.linalg.qr(gaussian(rows, k, seed=1, dtype=values.dtype)).Q
    right = torch.linalg.qr(gaussian(columns, k, seed=2, dtype=values.dtype)).Q
    return left @ torch.diag(values) @ right.T


def clustered(n: int) -> Tensor:
    """A hundred values within 2 % of the top, then a bulk: a residual test alone stops early."""
    top = torch.linspace(1.0, 0.98, 100, dtype=torch.float64)
    return with_spectrum(torch.cat([top, torch.linspace(0.9, 0.0, n - 100).double()]), n, n)


def exact(w: Tensor) -> float:
    """Independent truth: numpy's decomposition in double precision."""
    flat = w.double().flatten(1).numpy()
    n_out, n_in = flat.shape
    return math.sqrt(n_in / n_out) * float(np.linalg.norm(flat, 2))


CASES = {
    "gaussian": lambda: gaussian(512, 512),
    "tall": lambda: gaussian(700, 220),
    "wide": lambda: gaussian(220, 700),
    "tiny": lambda: gaussian(3, 2),
    "scalar": lambda: gaussian(1, 1),
    "row": lambda: gaussian(1, 300),
    "column": lambda: gaussian(300, 1),
    "orthogonal": lambda: torch.linalg.qr(gaussian(300, 300)).Q,
    "rank one": lambda: torch.outer(gaussian(400), gaussian(300, seed=1)),
    "rank five": lambda: gaussian(400, 5) @ gaussian(5, 300, seed=1),
    "clustered": lambda: clustered(400),
    "clustered float32": lambda: clustered(400).float(),
    "one outlier": lambda: gaussian(400, 400) + 0.02 * gaussian(400, 400, seed=3).sign(),
    "hidden outlier": lambda: with_spectrum(torch.tensor([1.01] + [1.0] * 299), 300, 300),
    "float64": lambda: gaussian(300, 300, dtype=torch.float64),
    "bfloat16": lambda: gaussian(300, 300).bfloat16(),
    "transposed view": lambda: gaussian(300, 400).T,
    "diagonal": lambda: torch.diag(torch.linspace(0, 5, 300)),
    "huge": lambda: 1e30 * gaussian(300, 300),
    "minute": lambda: 1e-30 * gaussian(300, 300),
    "conv1d": lambda: gaussian(64, 32, 9),
    "conv2d": lambda: gaussian(210, 64, 3, 3),
    "conv3d": lambda: gaussian(8, 4, 3, 3, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_relative_error_is_within_the_tolerance(name: str) -> None:
    w = CASES[name]()
    assert float(rms_operator_norm(w)) == pytest.approx(exact(w), rel=1e-3)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4, 1e-6])
def test_tolerance_is_honoured(tolerance: float) -> None:
    w = clustered(400)
    ratio = float(rms_operator_norm(w, tolerance)) / exact(w)
    assert 1 - tolerance <= ratio <= 1 + 1e-9  # the iteration errs downwards only


def test_a_loose_tolerance_is_used() -> None:
    w = clustered(400)
    assert float(rms_operator_norm(w, 0.1)) < exact(w) * (1 - 1e-4)  # else the bound is not tested


@pytest.mark.slow
def test_many_gaussian_matrices() -> None:
    for seed in range(200):
        w = gaussian(256, 256 + seed, seed=seed)
        assert float(rms_operator_norm(w)) == pytest.approx(exact(w), rel=1e-3)


def test_zero_is_zero() -> None:
    assert float(rms_operator_norm(torch.zeros(300, 200))) == 0
    assert float(rms_operator_norm(torch.zeros(3, 2))) == 0


def test_stack_of_matrices() -> None:
    stack = gaussian(2, 3, 210, 250)
    norms = rms_operator_norm(stack, batched=True)
    assert norms.shape == (2, 3)
    assert float(norms[1, 2]) == pytest.approx(exact(stack[1, 2]), rel=1e-3)
    small = gaussian(4, 5, 6)
    assert rms_operator_norm(small, batched=True).tolist() == pytest.approx(
        [exact(matrix) for matrix in small], rel=1e-5
    )


def test_same_answer_twice_and_the_global_generator_is_left_alone() -> None:
    w, before = gaussian(300, 300), torch.random.get_rng_state()
    assert float(rms_operator_norm(w)) == float(rms_operator_norm(w))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_gradient_flows_and_the_weight_is_untouched() -> None:
    w = gaussian(300, 300).requires_grad_()
    copy = w.detach().clone()
    assert not rms_operator_norm(w).requires_grad
    assert torch.equal(w.detach(), copy)


def explicit_circular_convolution(w: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The whole operator as a dense matrix, one column an input pixel, by torch's convolution."""
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(grid) - 1]
    pixels = torch.eye(w.shape[1] * math.prod(grid), dtype=w.dtype).reshape(-1, w.shape[1], *grid)
    padding = [pad for k in reversed(w.shape[2:]) for pad in (0, k - 1)]
    return convolve(functional.pad(pixels, padding, mode="circular"), w).flatten(1).T


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((4, 3, 3), (7,)),
        ((2, 5, 3, 2), (5, 4)),
        ((3, 2, 2, 2, 3), (3, 3, 4)),
        ((5, 3, 1, 1), (4, 4)),
    ],
)
def test_convolution_against_its_dense_matrix(
    shape: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    w = gaussian(*shape, dtype=torch.float64)
    dense = explicit_circular_convolution(w, grid)
    norm = float(circular_convolution_norm(w, grid))
    assert norm == pytest.approx(exact(dense), rel=1e-9)
    assert norm <= float(rms_operator_norm(w)) * (1 + 1e-9)  # one receptive field bounds the whole


def test_receptive_field_is_the_map_to_one_output_position() -> None:
    w = gaussian(6, 4, 3, 3, dtype=torch.float64)
    patches = gaussian(500, 4, 3, 3, seed=1, dtype=torch.float64)
    gains = rms(functional.conv2d(patches, w).flatten(1)) / rms(patches.flatten(1))
    assert float(gains.max()) <= float(rms_operator_norm(w))
    flat = w.flatten(1)
    best = torch.linalg.svd(flat).Vh[0].reshape(1, 4, 3, 3)
    gain = rms(functional.conv2d(best, w).flatten(1)) / rms(best.flatten(1))
    assert float(gain) == pytest.approx(float(rms_operator_norm(w)))


def test_rms() -> None:
    x = gaussian(3, 4, 5, dtype=torch.float64)
    assert torch.allclose(rms(x), x.square().mean(-1).sqrt())
    assert torch.allclose(rms(x, dim=(0, 2)), x.square().mean((0, 2)).sqrt())
    assert torch.allclose(rms(x, dim=1), x.square().mean(1).sqrt())


def test_rms_is_differentiable() -> None:
    x = gaussian(7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(rms, (x,))


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (torch.tensor([[1.0, math.nan], [1.0, 2.0]]), "has 1 entries that are not finite"),
        (torch.tensor([[1.0, math.inf], [-math.inf, 2.0]]), "has 2 entries that are not finite"),
        (torch.ones(3), r"needs \(out, in\)"),
        (torch.ones(3, 0), "an empty matrix has no norm"),
        (torch.ones(3, 3, dtype=torch.complex64), "for real weights only"),
        (torch.ones(3, 3, dtype=torch.int64), r"torch\.int64: pass floating-point numbers"),
    ],
)
def test_bad_weights(w: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rms_operator_norm(w)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1.0, math.nan])
def test_bad_tolerance(tolerance: float) -> None:
    with pytest.raises(InputError, match="a relative error lies between 0 and 1"):
        rms_operator_norm(torch.eye(2), tolerance)


@pytest.mark.parametrize("grid", [(4,), (4, 2), (4, 4, 4)])
def test_bad_grid(grid: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="one size per kernel axis, none smaller"):
        circular_convolution_norm(torch.ones(2, 2, 3, 3), grid)


def test_rms_of_nothing_and_of_integers() -> None:
    with pytest.raises(InputError, match="nothing to average over dim=-1"):
        rms(torch.ones(3, 0))
    with pytest.raises(InputError, match=r"x holds torch\.int64"):
        rms(torch.ones(3, dtype=torch.int64))
