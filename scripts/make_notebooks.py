"""Write the course's notebooks from its pages: ``python scripts/make_notebooks.py``.

A page of ``docs/course`` and the notebook beside it are one text. Pages are edited, notebooks made;
a test holds them equal and runs them.
"""

from pathlib import Path

import jupytext
import nbformat

COURSE = Path(__file__).parents[1] / "docs" / "course"


def pages() -> list[Path]:
    return sorted(path for path in COURSE.glob("*.md") if path.name != "index.md")


def notebook_text(page: Path) -> str:
    """The page as a notebook without outputs, the same text every time."""
    notebook = jupytext.reads(page.read_text(encoding="utf-8"), fmt="md")
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"{page.stem}-{number}", {}
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    for page in pages():
        page.with_suffix(".ipynb").write_text(notebook_text(page), encoding="utf-8")
        print(page.with_suffix(".ipynb"))
