"""The page: structure, numbers from the record, nothing loaded from elsewhere."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from thetaone.errors import ReportError
from thetaone.records import TransferResult
from thetaone.report import describe, ensure_writable, headline, render, write_report
from thetaone.report.page._contents import Verdict
from thetaone.report.page._html import inlined

LOADING = {"src", "href", "data", "poster", "srcset", "action", "xlink:href"}


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self.words += data.replace("\N{NO-BREAK SPACE}", " ")
        if "h2" in self._open:
            self.headings[-1] += data


@pytest.fixture(scope="module")
def text(result: TransferResult) -> str:
    return render(result)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_golden_structure(page: Page) -> None:
    assert page.headings == [
        "Loss against learning rate",
        "How far the best rate moves",
        "Every layer learns alike at every width",
        "What the memory costs in time",
        "The level of the loss is not decided everywhere",
        "The target: width 256, trained once",
        "Train it yourself",
        "What each parameter gets",
        "The laws hold on this machine",
        "How to get this report again",
        "What the words mean",
    ]
    figures = [a["id"] for tag, a in page.tags if tag == "figure"]
    assert figures == [
        "learning-rate", "drift", "coordinate-check", "exponents", "frontier", "timeline",
        "levels", "training", "account", "laws",
    ]  # fmt: skip


def test_nothing_is_loaded_from_elsewhere(page: Page, text: str) -> None:
    targets = [
        value or ""
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in LOADING
    ]
    assert targets
    assert all(target.startswith("#") or target in ("data:,", "result.json") for target in targets)
    styles = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert len(styles) == 1
    assert "@import" not in styles[0]
    assert "url(" not in styles[0]


def test_ids_are_unique_and_anchors_resolve(page: Page) -> None:
    ids = [str(a["id"]) for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    anchors = {str(a["href"]) for tag, a in page.tags if tag == "a"} - {"result.json"}
    assert anchors <= {f"#{name}" for name in ids}


def test_every_plot_has_words_a_table_and_data(page: Page, text: str) -> None:
    plots = [a for tag, a in page.tags if tag == "div" and a.get("class") == "plot"]
    assert len(plots) == 13
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 40 for a in plots)
    match = re.search(r'id="specifications">(.*?)</script>', text, flags=re.DOTALL)
    assert match
    assert set(json.loads(match[1])) == {a["data-spec"] for a in plots}
    n_figures = sum(tag == "figure" for tag, _ in page.tags)
    assert sum(tag == "details" for tag, _ in page.tags) == n_figures


def test_the_numbers_are_the_records(page: Page) -> None:
    for number in ("−0.22 octaves", "−2.51", "0.0118", "57.8 MiB", "21.7× less", "28 of 28"):
        assert number in page.words, number


def test_failing_layers_are_named_in_words(page: Page) -> None:
    assert "In SP these fail: blocks.*.attention.query" in page.words
    assert "In µP no layer fails." in page.words


def test_a_hostile_name_stays_text(result: TransferResult) -> None:
    evil = "</script><script>alert(1)</script><!--"
    text = render(result.model_copy(update={"task": evil, "command": evil}))
    assert "<script>alert" not in text
    assert text.count("</script>") == 4


def test_inlined_scripts_cannot_end_their_element() -> None:
    assert inlined("a </SCRIPT> b <!-- c") == r"a <\/SCRIPT> b <\!-- c"


def with_drift(result: TransferResult, **changes: object) -> TransferResult:
    assert result.mup.drift is not None
    drift = result.mup.drift.model_copy(update=changes)
    return result.model_copy(update={"mup": result.mup.model_copy(update={"drift": drift})})


def test_a_drift_that_is_too_large_is_the_headline(result: TransferResult) -> None:
    moved = with_drift(result, octaves=-0.81)
    assert headline(moved).startswith("The best learning rate moves with width")
    assert describe(moved).verdicts.rows[0][-1] == Verdict("fails", "does not hold")


def test_a_bound_is_not_a_proof(result: TransferResult) -> None:
    bound = with_drift(result, bounded_only=True)
    assert "not yet proved" in headline(bound)


def test_a_model_without_a_chain_says_so(result: TransferResult) -> None:
    note = "the model has no list of blocks"
    page = Page(render(result.model_copy(update={"memory": None, "memory_note": note})))
    assert note in page.words
    assert "frontier" not in [a.get("id") for _, a in page.tags]


def test_a_diverged_target_is_reported_and_drawn(result: TransferResult) -> None:
    target = result.target.model_copy(
        update={"status": "diverged", "losses": (4.6, 5.0, float("inf"))}
    )
    page = Page(render(result.model_copy(update={"target": target})))
    assert "did not finish" in page.words


def test_write_report_writes_the_page_and_a_result_that_reads_back(
    result: TransferResult, tmp_path: Path
) -> None:
    page = write_report(result, tmp_path / "deep" / "out")
    assert page.name == "index.html"
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "result.json"]
    again = TransferResult.from_json(page.parent / "result.json")
    assert again.chosen_lr == result.chosen_lr
    assert again.check_sp == result.check_sp


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("I am a file")
    with pytest.raises(ReportError, match=r"cannot write a report to .*file/out.*Not a directory"):
        ensure_writable(blocked / "out")
    assert ensure_writable(tmp_path / "elsewhere").is_dir()  # the advice works


def test_a_failed_write_leaves_the_old_page(
    result: TransferResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = write_report(result, tmp_path)
    before = page.read_text()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ReportError, match="No space left on device"):
        write_report(result, tmp_path)
    assert page.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "result.json"]


def test_a_level_that_fails_is_the_headline_with_what_to_do(result: TransferResult) -> None:
    failed = result.levels[0].model_copy(update={"verdict": "fails", "advice": "Add seeds."})
    other = result.model_copy(update={"levels": (failed, *result.levels[1:])})
    assert headline(other).endswith(f"but not so: {failed.claim}. Add seeds.")


def test_sentences_on_the_minima_follow_the_drift(result: TransferResult) -> None:
    def words(octaves: float) -> str:
        drift = result.sp.drift
        assert drift is not None
        sp = result.sp.model_copy(update={"drift": drift.model_copy(update={"octaves": octaves})})
        page = describe(result.model_copy(update={"sp": sp}))
        return page.sections[0].text[0].text

    assert "SP is on the left: its minima move left by 2.00 octaves" in words(-2.0)
    assert "SP is on the left: its minima stay, within 0.10 octaves" in words(0.1)
    assert "SP is on the left: its minima move right by 1.00 octaves" in words(1.0)


def test_the_block_to_paste_carries_the_recipe(text: str) -> None:
    assert "clip_grad_norm_(model.parameters(), 1.0)" in text
    assert "recipe.scheduler(optimizer)" in text
