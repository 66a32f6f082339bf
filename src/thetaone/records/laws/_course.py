"""What a measurement says of a reader's formula."""

from typing import Literal

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records.laws._laws import LawResult

CourseVerdict = Literal["holds", "refuted", "undecided"]


class CourseAnswer(Record):
    """The verdict on a formula, with the figures that it rests on.

    Attributes:
        problem: Name of the problem.
        question: The problem in one sentence.
        verdict: ``holds``, ``refuted`` (by at least one row) or ``undecided`` (too noisy to tell).
        results: What the formula says beside what was measured, a row a case.
        mistake: The known mistake that says the same numbers, in words; empty when there is none.

    Examples:
        >>> from thetaone.course import check
        >>> answer = check("rematerialization", lambda n_layers: n_layers * 50)
        >>> answer.verdict, answer.results[1].predicted, answer.results[1].measured
        ('refuted', 600.0, 360.0)
    """

    problem: str
    question: str
    verdict: CourseVerdict
    results: tuple[LawResult, ...]
    mistake: str = ""

    def __str__(self) -> str:
        rows = [
            (
                result.quantity,
                f"{'' if result.relation == '=' else result.relation + ' '}{result.predicted:.5g}",
                f"{result.measured:.5g}",
                f"± {result.stderr:.2g}" if result.stderr else "",
                "yes" if result.passed else "no",
                result.note,
            )
            for result in self.results
        ]
        columns = ("measured quantity", "your formula", "measured", "", "agrees", "")
        return f"{self.headline}\n\n{text_table(columns, rows)}"

    @property
    def headline(self) -> str:
        """Verdict and the row that decides, in a line; the mistake in a second one."""
        row = next((result for result in self.results if not result.passed), self.results[0])
        doubt = f" ± {row.stderr:.2g}" if row.stderr else ""
        expected = f"{'' if row.relation == '=' else row.relation + ' '}{row.predicted:.5g}"
        line = (
            f"{self.problem}: {self.verdict}. {row.quantity}: measured {row.measured:.5g}{doubt}; "
            f"if the formula held, {expected}."
        )
        return f"{line}\nA known mistake: {self.mistake}." if self.mistake else line
