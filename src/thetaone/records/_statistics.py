"""Limits and intervals of a mean whose spread is itself known from few numbers."""

Z_LIMIT = 4.5  # standard errors that chance exceeds once in 150 000 comparisons
FALSE_ALARM = 6.8e-6  # that chance: 2 (1 − Φ(4.5))


def student_interval(
    centre: float, stderr: float, freedom: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Centre ∓ t · stderr, t the Student quantile of the confidence.

    Args:
        centre: The estimate.
        stderr: Its standard error.
        freedom: Degrees of freedom that the standard error is known with [count].
        confidence: Chance that the interval covers, in (0, 1).

    Examples:
        >>> low, high = student_interval(0.0, 1.0, freedom=2)
        >>> round(high, 3)
        4.303
    """
    half = student_limit(freedom, alarm=1 - confidence) * stderr
    return centre - half, centre + half


def student_limit(freedom: float, *, alarm: float = FALSE_ALARM, comparisons: int = 1) -> float:
    """|t| that chance exceeds in one of so many comparisons with probability ``alarm``.

    Bonferroni's bound over the comparisons: 4.5 for many degrees of freedom and one comparison;
    more when the spread is known from few numbers, or the largest of many coordinates is judged.

    Args:
        freedom: Degrees of freedom, > 0; inf for a known spread [count].
        alarm: Chance of a false alarm over all comparisons.
        comparisons: Coordinates of which the largest is judged [count].

    Examples:
        >>> round(student_limit(float("inf")), 2), round(student_limit(4), 1)
        (4.5, 30.6)
    """
    # SciPy takes longer to load than all records
    from scipy.special import ndtri, stdtrit  # pyright: ignore[reportMissingTypeStubs]

    tail = alarm / (2 * comparisons)
    return -float(ndtri(tail) if freedom == float("inf") else stdtrit(freedom, tail))
