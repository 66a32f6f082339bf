"""What the first table of a report claims, and what it says where the data cannot tell."""

import pytest

from thetaone.records import CoordinateCheck, TransferResult
from thetaone.report.page._summary import verdicts


def undecided(check: CoordinateCheck, exponent: float) -> CoordinateCheck:
    """The check with one row left, across an edge of its band."""
    row = next(row for row in check.rows if row.law is not None)
    assert row.law is not None
    law = row.law.model_copy(update={"exponent": exponent})
    rows = (row.model_copy(update={"law": law, "answer": "undecided"}),)
    return check.model_copy(update={"rows": rows})


def row_of(result: TransferResult, claim: str) -> tuple[str, str]:
    (row,) = (row for row in verdicts(result).rows if str(row[0]).startswith(claim))
    return str(row[1]), str(getattr(row[3], "text", row[3]))


def test_rows_that_pass_undecided_are_counted(result: TransferResult) -> None:
    near = sum(undecided(result.check_mup, 0.0).rows[0].band) / 2
    check = undecided(result.check_mup, near)
    assert check.passed
    words, _ = row_of(result.model_copy(update={"check_mup": check}), "µP: every layer")
    assert words == "1 of 1 layers pass, 1 of 1 rows undecided near their bands"


@pytest.mark.parametrize(("exponent", "verdict"), [(9.0, "undecided"), (-9.0, "undecided")])
def test_an_undecided_check_shows_no_difference(
    result: TransferResult, exponent: float, verdict: str
) -> None:
    check = undecided(result.check_sp, exponent)
    assert not check.passed
    assert not check.failures
    _, answer = row_of(result.model_copy(update={"check_sp": check}), "SP: the same check")
    assert answer == verdict


def test_a_claim_that_begins_with_mu_keeps_its_letter(result: TransferResult) -> None:
    level = result.levels[0].model_copy(update={"claim": "µP is as good as SP"})
    table = verdicts(result.model_copy(update={"levels": (level,)}))
    assert "µP is as good as SP" in [row[0] for row in table.rows]
