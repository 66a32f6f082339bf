"""Gather the fragments of changelog.d into CHANGELOG.md under a version, dated, and delete them.

The version is written to its one place, ``src/thetaone/version.py``, and to ``CITATION.cff``.

Run: ``python scripts/gather_changelog.py 0.3.0`` (``make release VERSION=0.3.0`` does).
"""

import argparse
import datetime
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECTIONS = {"breaking": "Breaking", "added": "Added", "changed": "Changed", "fixed": "Fixed"}
HEADING = "\n## "


def gathered(fragments: dict[str, str]) -> str:
    """The text of a version's sections, from fragments ``{"topic.kind": text}``."""
    lines: list[str] = []
    for kind, title in SECTIONS.items():
        names = sorted(name for name in fragments if name.endswith(f".{kind}"))
        if names:
            lines += [f"### {title}", ""]
            lines += [text for name in names for text in (entry(fragments[name]), "")]
    return "\n".join(lines).rstrip() + "\n"


def entry(text: str) -> str:
    """A fragment as items of a list: it may be one already, else each paragraph is an item."""
    text = text.strip()
    if text.startswith("- "):
        return text
    first, *others = text.splitlines()
    return "\n".join([f"- {first}", *(f"  {line}" if line else "" for line in others)])


def read_fragments(folder: Path) -> dict[Path, str]:
    fragments = {path: path.read_text("utf-8") for path in sorted(folder.glob("*.md"))}
    fragments.pop(folder / "README.md", None)
    for path in fragments:
        if path.stem.rpartition(".")[2] not in SECTIONS:
            kinds = "|".join(SECTIONS)
            raise SystemExit(f"{path}: fragments are named <topic>.<{kinds}>.md; rename it")
    if not fragments:
        raise SystemExit(f"{folder} has no fragment: nothing to release")
    return fragments


def replace_once(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text("utf-8"), flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{path} has {count} lines like {pattern!r}, expected 1")
    path.write_text(text, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    version = parser.parse_args().version
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise SystemExit(f"version {version!r} is not of the form 1.2.3")
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text("utf-8")
    if f"{HEADING}{version}" in text:
        raise SystemExit(
            f"CHANGELOG.md has a section for {version} already; pass the next version, or none to "
            "build this one"
        )
    fragments = read_fragments(ROOT / "changelog.d")
    intro, heading, older = text.partition(HEADING)
    sections = gathered({path.stem: fragment for path, fragment in fragments.items()})
    today = datetime.datetime.now(datetime.UTC).date()
    section = f"{HEADING}{version} ({today})\n\n{sections}"
    changelog.write_text(f"{intro.rstrip()}\n{section}{heading}{older}".rstrip() + "\n", "utf-8")
    replace_once(
        ROOT / "src/thetaone/version.py", r'^__version__ = ".*"$', f'__version__ = "{version}"'
    )
    replace_once(ROOT / "CITATION.cff", r"^version: .*$", f"version: {version}")
    for path in fragments:
        path.unlink()
    print(f"{len(fragments)} fragments are now the section {version} of CHANGELOG.md")


if __name__ == "__main__":
    main()
