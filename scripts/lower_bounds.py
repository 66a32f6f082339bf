"""Print a constraints file that holds every dependency at the lower bound in pyproject.toml.

Only what the project itself names; what those packages need is left to pip.

Run: ``python scripts/lower_bounds.py > lower.txt`` (``make test-lower`` does).
"""

import itertools
import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?>=(?P<version>[\w.]+)")


def lower_bounds(pyproject: Path) -> list[str]:
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"].values()
    bounds: dict[str, str] = {}
    for requirement in itertools.chain(project["dependencies"], *extras):
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} in {pyproject} is not of the form name>=1.2")
        name, version = match.group("name", "version")
        if bounds.setdefault(name, version) != version:
            raise SystemExit(f"{name} has two lower bounds: {bounds[name]} and {version}")
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


if __name__ == "__main__":
    print("\n".join(lower_bounds(Path(__file__).parents[1] / "pyproject.toml")))
