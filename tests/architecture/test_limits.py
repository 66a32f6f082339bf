"""Sizes that keep a room readable: modules a folder, lines a file, lines a function."""

import ast
from collections.abc import Iterator
from pathlib import Path

import thetaone

SOURCE = Path(thetaone.__file__).parent
FOLDER, FILE, FUNCTION = 11, 350, 65
ONE_METHOD_A_FILE = {"cli", "estimators/methods", "report/figures"}


def modules(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.py") if path.name != "__init__.py"]


def crowded(root: Path) -> list[str]:
    folders = {path.parent for path in root.rglob("*.py")}
    names = {folder.relative_to(root).as_posix(): len(modules(folder)) for folder in folders}
    return sorted(
        f"{name}: {count} modules"
        for name, count in names.items()
        if count > FOLDER and name not in ONE_METHOD_A_FILE
    )


def long_files(root: Path) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python(root)}
    return [f"{path.relative_to(root)}: {n} lines" for path, n in lengths.items() if n > FILE]


def long_functions(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}: {node.name}, {code_lines(node)} lines"
        for path in python(root)
        for node in functions(path)
        if code_lines(node) > FUNCTION
    ]


def python(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body; signature and docstring are what a reader wants long."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_folder_is_crowded() -> None:
    assert crowded(SOURCE) == []


def test_no_file_is_long() -> None:
    assert long_files(SOURCE) == []


def test_no_function_is_long() -> None:
    assert long_functions(SOURCE) == []


def test_the_limits_see_what_is_beyond_them(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    folder.mkdir()
    for index in range(FOLDER + 1):
        (folder / f"_{index}.py").write_text("x = 1\n")
    body = "\n".join("    x = 1" for _ in range(FUNCTION + 1))
    (folder / "_0.py").write_text(f'def f():\n    """Do it."""\n{body}\n')
    (folder / "_1.py").write_text("x = 1\n" * (FILE + 1))
    assert crowded(tmp_path) == [f"room: {FOLDER + 1} modules"]
    assert long_files(tmp_path) == [f"room/_1.py: {FILE + 1} lines"]
    assert long_functions(tmp_path) == [f"room/_0.py: f, {FUNCTION + 1} lines"]
