"""One answer from the measured rows: holds, refuted, or undecided."""

from collections.abc import Sequence

from thetaone.records import Z_LIMIT, CourseVerdict, LawResult

BOUND_DOUBT = 2.0  # standard errors within which a bound is neither met nor missed


def verdict(results: Sequence[LawResult]) -> CourseVerdict:
    """Refuted by one row, holding only by all.

    Args:
        results: The formula's numbers beside the measured ones.

    Examples:
        >>> row = LawResult(name="n", title="t", quantity="q", predicted=1, measured=2, stderr=0,
        ...     passed=False)
        >>> verdict([row])
        'refuted'
    """
    answers = {row_verdict(result) for result in results}
    if "refuted" in answers:
        return "refuted"
    return "undecided" if "undecided" in answers else "holds"


def row_verdict(result: LawResult) -> CourseVerdict:
    """What one row says; a row too noisy to tell says nothing against a formula."""
    gap = abs(result.measured - result.predicted)
    if result.relation != "=" and gap <= BOUND_DOUBT * result.stderr:
        return "undecided"
    if result.passed:
        return "holds"
    if result.relation == "=" and gap <= Z_LIMIT * result.stderr:
        return "undecided"
    return "refuted"
