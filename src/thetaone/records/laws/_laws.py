"""One line of the proof that a law holds on this machine."""

from collections.abc import Sequence
from typing import Literal

from thetaone.records._base import Record
from thetaone.records._table import text_table

Relation = Literal["=", "≤", "≥"]


class LawResult(Record):
    """A predicted number beside the measured one.

    Attributes:
        name: The law, as ``verify_laws(names=[...])`` takes it; one law may give several results.
        title: The law in words.
        quantity: What is measured, with the case (sizes, rule).
        predicted: Value of the formula, or the bound for ``relation`` ≤ and ≥.
        measured: Value measured, same unit.
        stderr: Standard error of the measurement; 0 for an exact count or identity.
        relation: How measured relates to predicted when the law holds.
        passed: The verdict.
        note: What the verdict rests on, or why it failed.

    Examples:
        >>> import thetaone as t1
        >>> first = t1.verify_laws(["rematerialization"])[0]
        >>> first.quantity, first.predicted, first.measured, first.passed
        ('forwards in one backward pass', 20.0, 20.0, True)
    """

    name: str
    title: str
    quantity: str
    predicted: float
    measured: float
    stderr: float
    relation: Relation = "="
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        return laws_table([self])


class MeasuredLaws(Record):
    """What a run of the laws measured, as it is written to a file.

    Attributes:
        results: One a prediction, in the order of the catalogue.
    """

    results: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every law holds."""
        return all(result.passed for result in self.results)

    def __str__(self) -> str:
        held = sum(result.passed for result in self.results)
        return (
            f"{laws_table(self.results)}\n"
            f"{held} of {len(self.results)} measurements agree with their law"
        )


def laws_table(results: Sequence[LawResult]) -> str:
    """Predicted, measured, standard error and verdict of each result, as plain text."""
    rows = [
        (
            result.name,
            result.quantity,
            f"{result.relation} {result.predicted:.6g}",
            f"{result.measured:.6g}",
            _doubt(result),
            "pass" if result.passed else "FAIL",
            result.note,
        )
        for result in results
    ]
    return text_table(
        ("law", "quantity", "predicted", "measured", "std. error", "verdict", "note"), rows
    )


def _doubt(result: LawResult) -> str:
    if result.stderr:
        return f"{result.stderr:.2g}"
    return "exact" if result.relation == "=" else "—"
