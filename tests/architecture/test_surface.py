"""The public names against the API page, and the command line against a stored list.

A name stands in ``__init__.pyi`` and on the page, nowhere else. When a change of the command line
is meant, write the list anew: ``python tests/architecture/test_surface.py``.
"""

import ast
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import typer

import thetaone
from thetaone.cli._results import Report
from thetaone.cli.main import app
from thetaone.estimators import graphs, policy
from thetaone.estimators.judging._catalogue import CATALOGUE
from thetaone.records import Record

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


BLOCK = r"^```python\n(.*?)^```"
ROOMS = (thetaone.estimators, graphs, policy, thetaone.course)


def api_page() -> dict[str, object]:
    """Names on the page, with what each stands for."""
    lines = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines()
    names = [line.removeprefix("::: ") for line in lines if line.startswith("::: ")]
    assert len(names) == len(set(names))
    return {name: pkgutil.resolve_name(name) for name in names}


def public_names() -> dict[str, object]:
    """Names of the top level and of the rooms that are among them."""
    names = {f"thetaone.{name}": getattr(thetaone, name) for name in thetaone.__all__}
    for room in ROOMS:
        names |= {f"{room.__name__}.{name}": getattr(room, name) for name in room.__all__}
    return {
        name: value
        for name, value in names.items()
        if not isinstance(value, ModuleType | str)  # rooms have a section, __version__ needs none
    }


def returned_types(value: object) -> set[type]:
    """Types of ours that a call of ``value`` gives: its return type, a record's fields."""
    if inspect.isfunction(value):
        return set(named_types(get_type_hints(value).get("return")))
    if not isinstance(value, type):
        return set()
    is_record = issubclass(value, Record)
    types = set(named_types(*get_type_hints(value).values())) if is_record else set()
    for name, member in vars(value).items():
        function = getattr(member, "fget", getattr(member, "__func__", member))
        if not name.startswith("_") and inspect.isfunction(function):
            returned = set(named_types(get_type_hints(function).get("return")))
            types |= {kind for kind in returned if is_record or issubclass(kind, Record)}
    return types


def named_types(*hints: object) -> Iterator[type]:
    """Classes of ours in type hints, whatever they are wrapped in."""
    for hint in hints:
        if isinstance(hint, type) and hint.__module__.startswith("thetaone."):
            yield hint
        yield from named_types(*get_args(hint))


def test_an_option_has_one_meaning_wherever_it_stands() -> None:
    """One type and one line of help; the default is each command's own."""
    meanings: dict[str, dict[tuple[str, str], list[str]]] = {}
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for registered in app.registered_commands:
        assert registered.callback is not None
        types = get_type_hints(registered.callback)
        name = registered.name or registered.callback.__name__
        for parameter in commands[name].params:
            for option in parameter.opts:
                if option.startswith("-") and option != "--help":
                    kind = str(types[parameter.name]).removesuffix(" | None")
                    kind = re.sub(r"<class '([\w.]+)'>", r"\1", kind)
                    meaning = (kind, parameter.help)
                    meanings.setdefault(option, {}).setdefault(meaning, []).append(name)
    assert {option: found for option, found in meanings.items() if len(found) > 1} == {}
    assert meanings["--report"].keys() == {("pathlib.Path", get_args(Report)[1].help)}


def test_every_command_that_gives_a_result_prints_and_writes_it_alike() -> None:
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }
    giving = {name for name, known in options.items() if "--json" in known}
    assert giving >= {"audit", "check", "gradients", "laws", "plan", "policy", "sweep", "transfer"}
    assert all("--output" in options[name] for name in giving)
    assert all("--report" in options[name] for name in giving - {"audit", "doctor"})


def test_every_public_name_has_its_place_in_the_api_page() -> None:
    places, names = api_page(), public_names()
    listed = {id(value) for value in places.values()}
    assert [name for name, value in names.items() if id(value) not in listed] == []
    parts = {name for name in places if name.startswith("thetaone.records.")}
    assert set(places) - parts - set(names) == set()
    assert {name.rpartition(".")[2] for name in places if name.count(".") == 2} >= set(METHODS)


def test_every_type_that_a_public_call_returns_is_on_the_api_page() -> None:
    places = api_page()
    listed = {id(value) for value in places.values()}
    absent, reached, queue = set[str](), set[int](), list(public_names().values())
    while queue:
        value = queue.pop()
        reached.add(id(value))
        for kind in returned_types(value):
            absent |= {f"{kind.__module__}.{kind.__name__}"} if id(kind) not in listed else set()
            queue += [kind] if id(kind) not in reached else []
    assert absent == set()
    parts = [value for name, value in places.items() if name.startswith("thetaone.records.")]
    assert {id(part) for part in parts} - reached == {id(Record)}  # nothing that no call returns


def test_returned_types_are_seen_in_whatever_wraps_them() -> None:
    class Part(Record):
        x: int

    class Whole(Record):
        parts: dict[str, tuple[Part, ...]] | None

    Part.__module__ = Whole.__module__ = "thetaone.anywhere"
    assert returned_types(Whole) == {Part}


def executed_blocks() -> list[str]:
    """The Python of README and docs, as it runs there."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    return [block for text in texts for block in re.findall(BLOCK, text, re.S | re.M)]


MODULES = {"t1", "thetaone", "estimators", "graphs", "policy", "course"}  # as the pages call them


def names_used(blocks: Iterable[str]) -> set[str]:
    """Names that code reads from the package or imports; those of an object's own are none."""
    nodes = [node for block in blocks for node in ast.walk(ast.parse(textwrap.dedent(block)))]
    attributes = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and getattr(node.value, "attr", getattr(node.value, "id", "")) in MODULES
    }
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return attributes | {alias.name for node in imports for alias in node.names}


def has_example(name: str, value: object, used: set[str]) -> bool:
    """Whether a name has a doctest of its own, or is used in a block that runs."""
    return ">>> " in (value.__doc__ or "") or name.rpartition(".")[2] in used


def test_every_public_name_has_an_example_that_runs() -> None:
    used = names_used(executed_blocks())
    names = public_names().items()
    assert [name for name, value in names if not has_example(name, value, used)] == []


def test_an_example_is_a_doctest_or_a_block_with_the_name() -> None:
    def bare() -> None:
        """Do nothing."""

    assert not has_example("thetaone.bare", bare, names_used(["bare = t1.other()  # bare"]))
    assert not has_example("thetaone.bare", bare, names_used(["loss.bare"]))
    assert has_example("thetaone.bare", bare, names_used(["t1.bare()"]))
    assert has_example("thetaone.bare", bare, names_used(["from thetaone import bare"]))
    bare.__doc__ = "Do nothing.\n\n>>> bare()"
    assert has_example("thetaone.bare", bare, set())


if __name__ == "__main__":
    STORED.write_text(command_line(), encoding="utf-8")
