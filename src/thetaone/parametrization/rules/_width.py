"""Tensor Programs V, Table 3 (Yang, Hu et al. 2022, arXiv 2203.03466), in ratios to the base width.

With r_in = fan_in / base fan_in and r_out = fan_out / base fan_out:

=========  =============  =======  ==========  =========================
role       init std       Adam LR  SGD LR      grows
=========  =============  =======  ==========  =========================
input      1              1        r_out       fan_out only
vector     1              1        r_out       biases, gains: one a unit
hidden     1/√r_in        1/r_in   r_out/r_in  both
output     1/r_in         1/r_in   1/r_in      fan_in only
bottleneck 1/r_in         1/r_in   1/r_in      fan_in only, and the result feeds wide features
fixed      1              1        1           neither
=========  =============  =======  ==========  =========================

A bottleneck whose result a norm divides by its size starts as r_in^-½: there the size is of no
effect, and a change of Θ(1) must meet features of Θ(1), not of r_in^-½.

All rows are one formula, the spectral condition (Yang, Simon, Bernstein 2023, arXiv 2310.17813):
σ ∝ r_in^-½ · min(1, √(r_out/r_in)), sign-like rate ∝ 1/r_in, gradient rate ∝ r_out/r_in. With a
base of fans 1 and σ = 1 (role ``matrix``) it is that paper's absolute form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

INPUT, HIDDEN, OUTPUT, VECTOR, FIXED = "input", "hidden", "output", "vector", "fixed"
BOTTLENECK = "bottleneck"
MATRIX = "matrix"
ROLES = (INPUT, HIDDEN, OUTPUT, BOTTLENECK, VECTOR, FIXED)


@dataclass(frozen=True, slots=True)
class Row:
    """Exponents of (r_in, r_out) in one row of the table."""

    init: tuple[float, float]
    adam: tuple[float, float]
    sgd: tuple[float, float]


TABLE_3: Mapping[str, Row] = MappingProxyType(
    {
        INPUT: Row(init=(0, 0), adam=(0, 0), sgd=(0, 1)),
        VECTOR: Row(init=(0, 0), adam=(0, 0), sgd=(0, 1)),
        HIDDEN: Row(init=(-0.5, 0), adam=(-1, 0), sgd=(-1, 1)),
        OUTPUT: Row(init=(-1, 0), adam=(-1, 0), sgd=(-1, 0)),
        BOTTLENECK: Row(init=(-1, 0), adam=(-1, 0), sgd=(-1, 0)),
        FIXED: Row(init=(0, 0), adam=(0, 0), sgd=(0, 0)),
        MATRIX: Row(init=(-0.5, 0), adam=(-1, 0), sgd=(-1, 1)),
    }
)

WHY: Mapping[str, str] = MappingProxyType(
    {
        INPUT: "fan_in stays, fan_out grows",
        VECTOR: "one entry a unit",
        HIDDEN: "fan_in and fan_out grow",
        OUTPUT: "fan_in grows, fan_out stays",
        BOTTLENECK: "fan_in grows, fan_out stays and feeds what grows",
        FIXED: "does not grow with width",
        MATRIX: "spectral condition from its own fans",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """How the parts of one parameter's training scale from base to target; all 1 at the base.

    Attributes:
        role: Its role.
        init: Factor on the initial standard deviation.
        size: Factor on the size of an entry's update that keeps features Θ(1); Table 3's Adam rate.
        gradient: Factor by which an entry's gradient changes by itself.
        fan_in: r_in.
        fan_out: r_out.
        matrix: ``(rows, columns)`` of the flattened target; ``None`` for a vector.
        base_matrix: Same, of the base.
    """

    role: str
    init: float
    size: float
    gradient: float
    fan_in: float = 1.0
    fan_out: float = 1.0
    matrix: tuple[int, int] | None = None
    base_matrix: tuple[int, int] | None = None


def init_factor(role: str, r_in: float, r_out: float) -> float:
    """Factor on the initial standard deviation.

    The row of Table 3, times min(1, √(r_out/r_in)) where both fans grow, but differently.

    Args:
        role: A role of ``TABLE_3``.
        r_in: fan_in over base fan_in, > 0 [dimensionless].
        r_out: fan_out over base fan_out, > 0 [dimensionless].

    Returns:
        Factor > 0; exactly 1 when both ratios are 1.

    Source: arXiv 2203.03466 Table 3; arXiv 2310.17813 Parametrization 1.

    Examples:
        >>> init_factor("hidden", 4, 4), init_factor("output", 4, 1), init_factor("output", 0.25, 1)
        (0.5, 0.25, 4.0)
    """
    factor = _power(TABLE_3[role].init, r_in, r_out)
    if role not in (HIDDEN, MATRIX):
        return factor
    limit = min if r_in >= 1 else max  # to a narrower model and back again is 1
    return factor * limit(1.0, (r_out / r_in) ** 0.5)


def bilinear_init(r_in: float, r_one: float, r_out: float) -> float:
    """Factor on the initial standard deviation of ``y_i = Σ_jk W_ijk x_j z_k``.

    r_in^-½ · min(1, √(r_out/r_one)). With z given it is a matrix on x with entries of size
    σ·√fan(z), and the spectral condition holds for that one; the fans of x ⊗ z would ask for less,
    with features and gradients that vanish.

    Args:
        r_in: Growth of the product of both inputs' features.
        r_one: Growth of the wider input's features.
        r_out: Growth of the output's features.

    Examples:
        >>> bilinear_init(16, 4, 4), bilinear_init(16, 4, 1)
        (0.25, 0.125)
    """
    return float(r_in**-0.5 * min(1.0, (r_out / r_one) ** 0.5))


def update_size(role: str, r_in: float, r_out: float) -> float:
    """Factor on an entry's update that keeps features Θ(1): Table 3's Adam learning rate.

    Examples:
        >>> update_size("hidden", 4, 4), update_size("input", 1, 4)
        (0.25, 1.0)
    """
    return _power(TABLE_3[role].adam, r_in, r_out)


def gradient_size(role: str, r_in: float, r_out: float) -> float:
    """Factor by which an entry's gradient changes: Table 3's Adam rate over its SGD rate.

    Source: both optimizers must make the same update, so η_SGD · g = η_Adam · 1.

    Examples:
        >>> gradient_size("hidden", 4, 4), gradient_size("output", 4, 1)
        (0.25, 1.0)
    """
    row = TABLE_3[role]
    return _power(row.adam, r_in, r_out) / _power(row.sgd, r_in, r_out)


@lru_cache(maxsize=1024)  # a model's blocks are alike
def scales(
    role: str,
    r_in: float,
    r_out: float,
    *,
    fold: float = 1.0,
    depth_gradient: float = 1.0,
    depth_size: float = 1.0,
    copies: float = 1.0,
    matrix: tuple[int, int] | None = None,
    base_matrix: tuple[int, int] | None = None,
) -> Scales:
    """All scales of one parameter.

    A factor ``fold`` that the forward pass should apply to the weight is folded into the weight
    itself: initial values and updates are multiplied by it, gradients divided (the symmetry
    A·θ, σ/θ, η_SGD/θ², η_Adam/θ of Tensor Programs V, Lemma J.1).

    Args:
        role: A role of ``TABLE_3``.
        r_in: fan_in over base fan_in.
        r_out: fan_out over base fan_out.
        fold: Forward factor to fold into the parameter, > 0.
        depth_gradient: Factor on the gradient from a residual multiplier in front of the layer.
        depth_size: Factor on the update from depth.
        copies: The part of ``r_out`` that other parameters make, as of heads in a list.
        matrix: See ``Scales``.
        base_matrix: Same.

    Examples:
        >>> scales("hidden", 4, 4).size
        0.25
    """
    return Scales(
        role=role,
        init=init_factor(role, r_in, r_out) * fold,
        size=update_size(role, r_in, r_out) * fold * depth_size,
        gradient=gradient_size(role, r_in, r_out) / fold * depth_gradient,
        fan_in=r_in,
        fan_out=r_out / copies,
        matrix=matrix,
        base_matrix=base_matrix,
    )


def _power(exponents: tuple[float, float], r_in: float, r_out: float) -> float:
    return float(r_in ** exponents[0] * r_out ** exponents[1])
