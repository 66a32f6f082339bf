"""Each notebook is its page, runs as it stands, and answers a right and a wrong formula."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode, reads
from nbformat.v4 import new_code_cell, new_notebook

from thetaone.course._check import _PROBLEMS

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_notebooks.py"
SPEC = importlib.util.spec_from_file_location("make_notebooks", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
make_notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_notebooks)
PAGES: list[Path] = make_notebooks.pages()
SECONDS = 120  # on a crowded machine; alone, a notebook takes one to five


@pytest.fixture(scope="module")
def client() -> Iterator[NotebookClient]:
    """One kernel for all: a start costs more than a notebook."""
    client = NotebookClient(new_notebook(), timeout=SECONDS, kernel_name="python3")
    with client.setup_kernel():
        yield client


def run(notebook: NotebookNode, client: NotebookClient) -> NotebookNode:
    client.nb = notebook
    client.reset_execution_trackers()
    client.execute_cell(new_code_cell("%reset -f"), -1)
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)
    return notebook


def shown(notebook: NotebookNode) -> list[str]:
    """What the cells display, as a front end without HTML would."""
    return [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]


def test_there_are_seven_and_each_asks_its_own_question() -> None:
    assert len(PAGES) == 7
    assert {page.stem for page in PAGES} == _PROBLEMS.keys()
    for page in PAGES:
        asked = re.findall(r'course\.check\(\s*"([\w-]+)"', page.read_text(encoding="utf-8"))
        assert len(asked) >= 2, page.name  # the guess, and what the derivation ends in
        assert set(asked) == {page.stem}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_is_its_page(page: Path) -> None:
    stored = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert stored == make_notebooks.notebook_text(page), "run: python scripts/make_notebooks.py"


@pytest.mark.xdist_group("notebooks")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_refutes_its_guess_and_derives_what_holds(
    page: Path, client: NotebookClient
) -> None:
    notebook = run(reads(page.with_suffix(".ipynb").read_text(encoding="utf-8"), 4), client)
    answers = [text for text in shown(notebook) if "CourseAnswer" in text or ": " in text]
    assert "refuted" in answers[0]
    assert "holds" in answers[-1]
    html = [
        output["data"].get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    assert all("<table>" in text for text in html)


@pytest.mark.xdist_group("notebooks")
def test_a_notebook_whose_derivation_is_wrong_fails(client: NotebookClient) -> None:
    text = (PAGES[0].parent / "rematerialization.ipynb").read_text(encoding="utf-8")
    wrong = text.replace("n_layers * load_ns", "2 * load_ns")
    assert wrong != text
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(reads(wrong, 4), client)
