"""Laws 3 and 4: the learning rate of hidden weights under Adam when the width grows."""

from typing import Literal

Scheme = Literal["µP", "SP"]


def hidden_adam_rate_factor(width_ratio: float, scheme: Scheme) -> float:
    """Factor on Adam's rate for hidden weights: 1/fan_in in µP, constant in SP.

    Args:
        width_ratio: fan_in / base fan_in, > 0.
        scheme: Maximal update or standard parametrization.

    Returns:
        Factor > 0, 1 at the base width.

    Source: G. Yang et al., "Tensor Programs V", arXiv 2203.03466, Table 3.

    Examples:
        >>> hidden_adam_rate_factor(8, "µP"), hidden_adam_rate_factor(8, "SP")
        (0.125, 1.0)
    """
    return 1 / width_ratio if scheme == "µP" else 1.0


def feature_update_growth(rate_factor: float, width_ratio: float) -> float:
    """‖ΔW x‖_RMS at a width over that at the base, for one step of a sign-like optimizer.

    ΔW = −η sign(g xᵀ) moves every feature by η ‖x‖₁, a sum of fan_in terms of size Θ(1).

    Examples:
        >>> feature_update_growth(rate_factor=1.0, width_ratio=8)
        8.0
    """
    return rate_factor * width_ratio
