"""No import circle, lazily exported names and imports inside functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import thetaone

SOURCE = Path(thetaone.__file__).parent
Graph = dict[str, set[str]]


def dotted(path: Path, root: Path) -> str:
    parts = (root.name, *path.relative_to(root).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


class Names:
    """Where a name that a package exports is defined, as its stub says."""

    def __init__(self, root: Path) -> None:
        self.modules = {dotted(path, root) for path in root.rglob("*.py")}
        self.exports = {
            dotted(stub, root): dict(self._exports(stub, dotted(stub, root)))
            for stub in root.rglob("__init__.pyi")
        }

    @staticmethod
    def _exports(stub: Path, package: str) -> Iterator[tuple[str, str]]:
        for node in ast.walk(ast.parse(stub.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                home = f"{package}.{node.module}" if node.module else package
                yield from ((alias.name, home) for alias in node.names)

    def home(self, module: str, name: str) -> str:
        """The module that defines ``name``, imported from ``module``."""
        if f"{module}.{name}" in self.modules:
            return f"{module}.{name}"
        source = self.exports.get(module, {}).get(name)
        return module if source is None else self.home(source, name)


def import_graph(root: Path) -> Graph:
    names = Names(root)
    graph: Graph = {module: set() for module in names.modules}
    for path in root.rglob("*.py"):
        module = dotted(path, root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(root.name):
                for alias in node.names:
                    graph[module].add(names.home(node.module or "", alias.name))
            elif isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & names.modules
        graph[module].discard(module)
    return graph


def circle(graph: Graph) -> list[str]:
    """The modules of one circle, in order; empty when there is none."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if closed := visit(other, [*trail, module]):
                return closed
        done.add(module)
        return []

    return next((closed for module in sorted(graph) if (closed := visit(module, []))), [])


def test_no_import_circle() -> None:
    graph = import_graph(SOURCE)
    assert sum(map(len, graph.values())) > len(graph)  # it was read
    assert circle(graph) == []


@pytest.mark.parametrize("inside", ["", "def later():\n    "], ids=["at the top", "in a function"])
def test_a_circle_through_a_stub_is_seen(tmp_path: Path, inside: str) -> None:
    root = tmp_path / "thetaone"
    for folder, text in {
        "": "",
        "low": "from ._one import f as f\n",
        "high": "from ._two import g as g\n",
    }.items():
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "__init__.py").write_text("")
        (root / folder / "__init__.pyi").write_text(text)
    (root / "low" / "_one.py").write_text(f"{inside}from thetaone.high import g\n")
    (root / "high" / "_two.py").write_text("from thetaone.low import f\n")
    expected = ["thetaone.high._two", "thetaone.low._one", "thetaone.high._two"]
    assert circle(import_graph(root)) == expected
