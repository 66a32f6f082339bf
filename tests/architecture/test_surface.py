"""The public names against the API page, and the command line against a stored list.

A name stands in ``__init__.pyi`` and on the page, nowhere else. When a change of the command line
is meant, write the list anew: ``python tests/architecture/test_surface.py``.
"""

from pathlib import Path

import typer

import thetaone
from thetaone.cli.main import app
from thetaone.estimators import graphs, policy
from thetaone.estimators.judging._catalogue import CATALOGUE

METHODS = sorted({"MovingAverage"} | {type(make()).__name__ for make in CATALOGUE.values()})
STORED = Path(__file__).with_name("command_line.txt")
ROOT = Path(__file__).parents[2]


def command_line() -> str:
    lines: list[str] = []
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for name, command in sorted(commands.items()):
        options = sorted(
            option if option.startswith("-") else option.upper()
            for parameter in command.params
            for option in parameter.opts
        )
        lines.append(" ".join(["thetaone", name, *options]))
    return "\n".join(lines) + "\n"


def test_the_command_line_is_the_stored_one() -> None:
    assert command_line() == STORED.read_text(encoding="utf-8")


def test_every_public_name_has_its_place_in_the_api_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    places = {line.removeprefix("::: ") for line in page.splitlines() if line.startswith("::: ")}
    estimators = {place for place in places if place.startswith("thetaone.estimators.")}
    rooms = {place for place in estimators if place.count(".") == 3}
    top = {f"thetaone.{name}" for name in thetaone.__all__} - {"thetaone.__version__"}
    assert places - estimators == top - {"thetaone.estimators"}
    assert estimators - rooms == {f"thetaone.estimators.{name}" for name in METHODS}
    assert rooms == {
        f"{room.__name__}.{name}" for room in (graphs, policy) for name in room.__all__
    }


if __name__ == "__main__":
    STORED.write_text(command_line(), encoding="utf-8")
