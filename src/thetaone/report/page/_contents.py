"""What a page is made of, before it is HTML."""

from dataclasses import dataclass, field
from typing import Literal

from thetaone.report.drawing import Figure

Standing = Literal["holds", "fails", "open"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word and a sign for whether a claim holds; never colour alone.

    Attributes:
        verdict: ``holds``, ``fails`` or ``open`` (not measured, or not decided by the data).
        text: The word shown.
    """

    verdict: Standing
    text: str


Cell = str | Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of formatted cells.

    Attributes:
        caption: What the table lists; also what a screen reader announces.
        columns: Headings.
        rows: Cells.
        numeric: Which columns are numbers, aligned right.
        style: ``wide`` fills the page; ``stack`` also folds each row on a phone.
        show_caption: Whether the caption is shown or only announced.
        note: Below the rows: what is left out.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...] = ()
    style: str = "wide"
    show_caption: bool = False
    note: str = ""
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        if not self.numeric:
            object.__setattr__(self, "numeric", (False,) * len(self.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text to be typed."""

    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Words and their meanings."""

    entries: tuple[tuple[str, str], ...]
    kind: Literal["words"] = "words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """What a reader unfolds on demand.

    Attributes:
        summary: The line that is always there: what unfolding shows.
        blocks: What is folded away.
    """

    summary: str
    blocks: tuple[Figure | Table | Code | Words, ...]
    kind: Literal["folded"] = "folded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """Sentences; an aside is set back."""

    text: str
    aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One number of the headline."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page.

    Attributes:
        key: Anchor.
        nav: Its name in the list of sections.
        title: Its heading: the finding where there is one.
        text: What one sees, and what would have shown the claim false.
        blocks: Figures, tables and code, in order.
    """

    key: str
    nav: str
    title: str
    text: tuple[Paragraph, ...] = ()
    blocks: tuple[Figure | Table | Code | Words | Folded, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report.

    Attributes:
        title: Of the browser's window.
        headline: The finding, in one line.
        lead: The finding, in two sentences.
        meta: Task, optimizer, time.
        facts: The numbers of the headline.
        verdicts: Claims, what was measured, whether they hold; no rows where nothing is claimed.
        sections: In order.
        thetaone: Version that wrote it.
    """

    title: str
    headline: str
    lead: str
    meta: str
    facts: tuple[Fact, ...]
    verdicts: Table
    sections: tuple[Section, ...] = field(default=())
    thetaone: str = ""
