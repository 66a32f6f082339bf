"""Law 5: the spectral condition, in the induced RMS→RMS norm."""

import math


def induced_from_spectral(spectral_norm: float, n_out: int, n_in: int) -> float:
    """``√(n_in/n_out) · ‖A‖₂``.

    Examples:
        >>> induced_from_spectral(3.0, n_out=4, n_in=16)
        6.0
    """
    return math.sqrt(n_in / n_out) * spectral_norm


def condition_spectral_norm(n_out: int, n_in: int) -> float:
    """‖W‖₂ at which Condition 1 holds with constant 1: ``√(n_out/n_in)``.

    Source: G. Yang, J. Simon, J. Bernstein, arXiv 2310.17813, Condition 1.

    Examples:
        >>> condition_spectral_norm(n_out=4, n_in=16)
        0.5
    """
    return math.sqrt(n_out / n_in)


def sign_update_induced_norm(n_in: int) -> float:
    """Induced norm of ``sign(g xᵀ)``: ‖·‖₂ = √(n_out n_in), so ``n_in``; its flattened RMS is 1.

    Examples:
        >>> sign_update_induced_norm(256)
        256.0
    """
    return float(n_in)


def flattened_rms_of_signs() -> float:
    """RMS of the entries of any matrix of signs: 1, whatever its shape.

    Examples:
        >>> flattened_rms_of_signs()
        1.0
    """
    return 1.0


def aligned_update_alignment() -> float:
    """‖ΔW h‖_RMS / (‖ΔW‖_RMS→RMS ‖h‖_RMS) of a rank-one update u hᵀ: the bound is attained.

    Examples:
        >>> aligned_update_alignment()
        1.0
    """
    return 1.0
