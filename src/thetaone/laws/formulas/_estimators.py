"""Law 6: gradients of ``F(µ, σ) = E x³``, x ∼ N(µ, σ²), which is ``µ³ + 3µσ²``."""


def cubic_gradient_mu(mu: float, sigma: float) -> float:
    """∂F/∂µ = 3µ² + 3σ².

    Examples:
        >>> cubic_gradient_mu(1.0, 0.5)
        3.75
    """
    return 3 * mu**2 + 3 * sigma**2


def cubic_gradient_sigma(mu: float, sigma: float) -> float:
    """∂F/∂σ = 6µσ.

    Examples:
        >>> cubic_gradient_sigma(1.0, 0.5)
        3.0
    """
    return 6 * mu * sigma
