"""What an installation can do on this machine."""

from typing import Literal

from thetaone.records._base import Record
from thetaone.records._table import text_table

Condition = Literal["ok", "absent", "fails"]


class Finding(Record):
    """One thing looked at.

    Attributes:
        what: Name.
        value: What was found.
        condition: ``ok``; ``absent``: an extra that is not there; ``fails``: the main job needs it.
        advice: What to do; empty where there is nothing to do.
    """

    what: str
    value: str
    condition: Condition = "ok"
    advice: str = ""


class Diagnosis(Record):
    """What a machine and an installation can do.

    Attributes:
        findings: In the order of the table.
    """

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether the main job can run."""
        return not any(finding.condition == "fails" for finding in self.findings)

    def __str__(self) -> str:
        marks = {"ok": "✓", "absent": "–", "fails": "✗"}
        rows = [
            (marks[finding.condition], finding.what, finding.value, finding.advice)
            for finding in self.findings
        ]
        verdict = "the main job can run" if self.passed else "the main job cannot run: see ✗"
        return f"{text_table(('', 'what', 'found', 'what to do'), rows)}\n{verdict}"
