"""What a notebook shows of records, held against what they print."""

import re
import xml.etree.ElementTree as ET

import pytest

from thetaone.errors import MissingExtraError
from thetaone.records import (
    Drift,
    EngineDecision,
    Record,
    SweepResult,
    Trial,
    TrialSpec,
    text_table,
)


def sweep_result() -> SweepResult:
    trials = tuple(
        Trial(
            spec=TrialSpec(width=32, lr=lr, seed=0, n_steps=1, rule="mup"),
            losses=(loss,), status="finished", n_parameters=7,
        )
        for lr, loss in ((0.125, 3.0), (0.25, 1.0), (0.5, 2.0))
    )  # fmt: skip
    return SweepResult(
        task="<b>toy & co</b>", parametrization="mup", optimizer="Adam", base_width=32,
        trials=trials, engine=EngineDecision(engine="serial", reason="asked for"), n_trained=3,
        n_reused=0, wall_seconds=1.0,
    )  # fmt: skip


def cells_of(page: str) -> list[list[str]]:
    """The rows of every table on a page that must be well-formed."""
    tree = ET.fromstring(f"<div>{page}</div>")
    return [["".join(c.itertext()) for c in row] for row in tree.iter("tr")]


def test_the_table_has_the_cells_that_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    result = sweep_result()
    monkeypatch.setattr(SweepResult, "renderer", "")
    page = result._repr_html_()
    assert page is not None
    printed = str(result).splitlines()
    rows = cells_of(page)
    assert [re.split(r"\s{2,}", line.strip()) for line in (printed[1], printed[3])] == rows
    assert "&lt;b&gt;toy &amp; co&lt;/b&gt;" in page  # a task's name is text
    assert printed[-1] in "".join(ET.fromstring(f"<div>{page}</div>").itertext())
    assert "\x00" not in str(result)  # printing is as before


def test_a_record_inside_another_brings_its_tables() -> None:
    class Both(Record):
        inner: SweepResult

        def __str__(self) -> str:
            return f"before\n{self.inner}\n{text_table(['a'], [['<1>']])}\nafter"

    page = Both(inner=sweep_result())._repr_html_()
    assert page is not None
    assert page.count("<table>") == 2
    assert cells_of(page)[-1] == ["<1>"]
    assert page.index("before") < page.index("<table>") < page.rindex("</table>")
    assert page.rindex("</table>") < page.index("after")


def test_a_record_without_table_or_picture_is_shown_as_it_prints() -> None:
    drift = Drift(octaves=0.5, stderr=0.1, interval=(0.1, 0.9), from_width=4, to_width=8)
    assert drift._repr_html_() == f"<pre>{drift}</pre>"
    decision = EngineDecision(engine="serial", reason="asked for")
    assert decision._repr_html_() is None


def test_the_picture_is_drawn_once_and_its_absence_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    page = sweep_result()._repr_html_()
    assert page is not None
    assert 'src="data:image/png;base64,iVBOR' in page
    assert plt.get_fignums() == before  # an open figure would be shown below once more

    def absent(self: SweepResult) -> None:
        raise MissingExtraError("matplotlib", "plot")

    monkeypatch.setattr(SweepResult, "plot", absent)
    page = sweep_result()._repr_html_()
    assert page is not None
    assert "pip install" in page
    assert "<img" not in page
