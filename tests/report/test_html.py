"""The page: structure, numbers from the record, nothing loaded from elsewhere."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest

from thetaone.errors import ReportError
from thetaone.records import (
    BackwardPass,
    EstimatorBakeoff,
    KeptComparison,
    MeasuredLaws,
    MemoryPlan,
    PolicyRun,
    PolicyUpdate,
    TransferResult,
)
from thetaone.report import (
    describe,
    ensure_writable,
    headline,
    load_result,
    render,
    write_report,
)
from thetaone.report.page import Result
from thetaone.report.page._contents import Folded, Table, Verdict
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


def test_every_plot_has_words_a_picture_and_a_table(page: Page, text: str) -> None:
    plots = [a for tag, a in page.tags if tag == "div" and "plot" in str(a.get("class")).split()]
    assert len(plots) == 13
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 40 for a in plots)
    assert text.count('<svg class="area"') == len(plots)
    n_figures = sum(tag == "figure" for tag, _ in page.tags)
    folded = 1  # the laws
    assert sum(tag == "details" for tag, _ in page.tags) == n_figures + folded


def test_a_page_to_explore_has_data_for_every_plot(result: TransferResult) -> None:
    text = render(result, interactive=True)
    plots = {a["data-spec"] for _, a in Page(text).tags if "data-spec" in a}
    match = re.search(r'id="specifications">(.*?)</script>', text, flags=re.DOTALL)
    assert match
    assert set(json.loads(match[1])) == plots
    assert len(plots) == 13


@pytest.mark.parametrize("interactive", [False, True])
def test_the_policy_allows_the_scripts_of_the_page_and_no_other(
    interactive: bool, result: TransferResult
) -> None:
    text = render(result, interactive=interactive)
    (policy,) = (
        str(a["content"]) for tag, a in Page(text).tags if tag == "meta" and "http-equiv" in a
    )
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    allowed = re.findall(r"script-src ([^;]*);", policy)[0].split()
    assert allowed == [digest(script) for script in scripts]
    assert policy.startswith("default-src 'none';")
    if not interactive:
        styles = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
        assert re.findall(r"style-src ([^;]*);", policy)[0].split() == list(map(digest, styles))
        assert not [a for _, a in Page(text).tags if "style" in a or "onclick" in a]


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_page_stays_small_whatever_was_measured(result: TransferResult) -> None:
    """A thousand layers, a long training, a plan of thousands of operations."""
    assert result.memory is not None
    assert result.memory.cost is not None
    rows = tuple(
        row.model_copy(update={"layer": f"blocks.{block}.{row.layer.split('.')[-1]}"})
        for block in range(100)
        for row in result.check_sp.rows
    )
    check = result.check_sp.model_copy(update={"rows": rows})
    losses = tuple(2.0 + 1.0 / (1 + step) for step in range(50_000))
    timeline = result.memory.cost.timeline
    n = 3000
    long = timeline.model_copy(
        update={
            "operations": ("forward",) * n, "stages": tuple(i % 6 for i in range(n)),
            "starts": tuple(map(float, range(n))), "seconds": (1.0,) * n,
            "live_bytes": tuple(range(1, n + 1)),
        }
    )  # fmt: skip
    cost = result.memory.cost.model_copy(update={"timeline": long})
    text = render(
        result.model_copy(
            update={
                "check_sp": check, "check_mup": check,
                "target": result.target.model_copy(update={"losses": losses}),
                "memory": result.memory.model_copy(update={"cost": cost}),
            }
        )
    )  # fmt: skip
    assert len(text.encode()) < 600_000
    assert "more, which are in result.json" in text


def test_laws_are_on_demand_but_those_that_fail(result: TransferResult) -> None:
    (laws,) = (s for s in describe(result).sections if s.key == "the-laws")
    assert [type(block) for block in laws.blocks] == [Folded]
    wrong = result.laws[0].model_copy(update={"passed": False})
    failing = result.model_copy(update={"laws": (wrong, *result.laws[1:])})
    (laws,) = (s for s in describe(failing).sections if s.key == "the-laws")
    table, folded = laws.blocks
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [wrong.name]
    assert isinstance(folded, Folded)


def kinds_of_results(result: TransferResult) -> list[Result]:
    passes = (
        BackwardPass(policy="every layer", kept=2, forwards=20, loads=10, seconds=5e-7,
                     break_even_load_seconds=5e-8),
    )  # fmt: skip
    update = PolicyUpdate(env_steps=10, returns=(1.0, 2.0))
    run = PolicyRun(task="cartpole", environment="CartPole-v1", width=8, lr=0.01, seed=0,
                    budget_steps=10, updates=(update,), wall_seconds=1.0)  # fmt: skip
    return [
        result.mup, result.check_sp, plan_of(result), KeptComparison(length=10, passes=passes),
        run, MeasuredLaws(results=result.laws), EstimatorBakeoff(comparisons=()),
    ]  # fmt: skip


def plan_of(result: TransferResult) -> MemoryPlan:
    assert result.memory is not None
    return result.memory


def test_every_kind_of_result_is_written_read_and_drawn_again(
    result: TransferResult, tmp_path: Path
) -> None:
    drawn = kinds_of_results(result)
    for index, other in enumerate(drawn):
        folder = tmp_path / str(index)
        write_report(other, folder)
        again = load_result(folder / "result.json")
        assert again.to_json() == other.to_json()
        page = Page(render(again))
        assert page.tags
    assert {type(one) for one in drawn} | {TransferResult, MemoryPlan} == set(get_args(Result))


def test_the_page_of_a_sweep_names_its_rate_and_draws_it(result: TransferResult) -> None:
    page = Page(render(result.mup))
    assert f"the best learning rate in µP is {result.mup.best_lr:.3g}" in page.words
    figures = [a["id"] for tag, a in page.tags if tag == "figure"]
    assert figures == ["learning-rate", "drift"]


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
    assert text.count("</script>") == 1


def test_inlined_scripts_cannot_end_their_element() -> None:
    assert inlined("a </SCRIPT> b <!-- c") == r"a <\/SCRIPT> b <\!-- c"


def with_drift(result: TransferResult, **changes: object) -> TransferResult:
    assert result.mup.drift is not None
    drift = result.mup.drift.model_copy(update=changes)
    return result.model_copy(update={"mup": result.mup.model_copy(update={"drift": drift})})


def test_a_drift_that_is_too_large_is_the_headline(result: TransferResult) -> None:
    moved = with_drift(result, octaves=-0.81, interval=(-0.95, -0.67))
    assert headline(moved).startswith("The best learning rate moves with width")
    assert describe(moved).verdicts.rows[0][-1] == Verdict("fails", "does not hold")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"interval": (-0.4, math.inf), "bounded_only": True}, "on the edge of the grid: widen it"),
        ({"interval": (-0.73, 1.27)}, "reaches beyond 0.5 octave: more seeds or steps would tell"),
    ],
)
def test_an_interval_that_reaches_beyond_the_strip_is_not_a_proof(
    result: TransferResult, changes: Any, advice: str
) -> None:
    """Whatever the point in its middle says."""
    open_drift = with_drift(result, octaves=0.02, **changes)
    assert "not yet proved" in headline(open_drift)
    assert describe(open_drift).verdicts.rows[0][-1] == Verdict("open", "undecided")
    page = Page(render(open_drift))
    assert advice in page.words
    assert "unknown" not in page.words


def test_the_fall_of_the_plain_rate_is_judged_by_its_interval(result: TransferResult) -> None:
    def verdict(low: float, high: float) -> Verdict:
        drift = result.sp.drift
        assert drift is not None
        sp = drift.model_copy(update={"interval": (low, high), "bounded_only": True})
        changed = result.model_copy(update={"sp": result.sp.model_copy(update={"drift": sp})})
        row = describe(changed).verdicts.rows[1]
        assert row[0] == "SP: the best rate falls with width"
        assert isinstance(row[-1], Verdict)
        return row[-1]

    assert verdict(-math.inf, -0.87) == Verdict("holds", "holds")
    assert verdict(-math.inf, 0.2) == Verdict("open", "undecided")
    assert verdict(-0.3, math.inf) == Verdict("fails", "does not hold")


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
    elsewhere = ensure_writable(tmp_path / "some" / "where")  # the advice works
    assert not elsewhere.parent.exists()  # until there is something to write


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
    assert "optimizer, scheduler = recipe.optimizer_and_scheduler(model)" in text


@pytest.mark.parametrize(("anchor", "warned"), [(32, False), (1024, False), (1025, True)])
def test_a_proxy_too_narrow_to_predict_is_told(
    result: TransferResult, anchor: int, warned: bool
) -> None:
    """The widest proxy is 128 wide: up to eight times narrower is what the benchmark covers."""
    first = str(result.model_copy(update={"base_width": anchor})).splitlines()[0]
    assert ("times narrower: sweep width 129 or more before you trust it" in first) == warned
