"""Every Python block of README and docs runs, and every page can be reached."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LANGUAGES = {"", "python", "text", "toml", "yaml"}  # what has none is shell, and says what to type


@pytest.fixture
def documents(request: pytest.FixtureRequest) -> Any:
    """What the root's conftest runs the blocks with."""
    plugin = request.config.pluginmanager.get_plugin(str(ROOT / "conftest.py"))
    return plugin.DOCUMENTS  # pyright: ignore[reportOptionalMemberAccess]


def fences(page: Path) -> list[str]:
    """The languages of a page's blocks."""
    lines = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.M)
    return [language.strip() for language in lines[::2]]


def navigation(entry: Any) -> list[str]:
    """Pages of the site's navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in navigation(part)]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_python_blocks_run_where_they_stand(page: Path, documents: Any) -> None:
    languages = fences(page)
    assert set(languages) <= LANGUAGES
    if "python" in languages and not page.with_suffix(".ipynb").exists():  # those run as notebooks
        assert documents.should_parse(page)


def test_every_page_is_in_the_navigation_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = navigation(site["nav"])
    assert sorted(pages) == [page.relative_to(ROOT / "docs").as_posix() for page in PAGES]


def test_the_glossary_is_one_step_from_every_page() -> None:
    """Top entries of the navigation are on every page."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert "navigation.tabs" in site["theme"]["features"]
    assert {"Glossary": "glossary.md"} in site["nav"]


def test_readme_names_every_kind_of_page_and_no_page_that_is_not() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\((docs/[^)#]+)\)", text))
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []
    folders = {page.parent.relative_to(ROOT).as_posix() for page in PAGES}
    assert {Path(link).parent.as_posix() for link in links} >= folders
