"""What importing and asking for help may load, and the frozen public surface."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import thetaone

HEAVY = ("torch", "ray", "optuna", "plotly", "lightning", "transformers", "matplotlib")

LOADED_AFTER = """
import sys
from pathlib import Path
{statement}
print(",".join(name for name in {heavy!r} if name in sys.modules))
"""

HELP = """
from thetaone.cli.main import main
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()):
    try:
        main(["--help"])
    except SystemExit:
        pass
"""


def loaded_after(statement: str) -> str:
    code = LOADED_AFTER.format(statement=statement, heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_the_probe_sees_a_heavy_import() -> None:
    assert loaded_after("import torch") == "torch"


@pytest.mark.parametrize("statement", ["import thetaone", HELP], ids=["import", "help"])
def test_loads_nothing_heavy(statement: str) -> None:
    assert loaded_after(statement) == ""


@pytest.mark.parametrize("name", thetaone.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(thetaone, name)
    assert name == "__version__" or value.__name__.rpartition(".")[2] == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No thetaone attribute parameterize"):
        getattr(thetaone, "parameterize")  # noqa: B009


STUBS = sorted(Path(thetaone.__file__).parent.rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: ".".join(stub.parent.parts[-2:]))
def test_every_name_that_a_room_exports_resolves(stub: Path) -> None:
    package = importlib.import_module(
        ".".join(("thetaone", *stub.parent.relative_to(Path(thetaone.__file__).parent).parts))
    )
    names = re.findall(r"import (\w+) as (\w+)$", stub.read_text(encoding="utf-8"), re.M)
    assert names
    for name, alias in names:
        assert name == alias
        assert hasattr(package, name)


def imported_at_the_top(file: Path) -> set[str]:
    names: list[str] = []
    for statement in ast.parse(file.read_text("utf-8")).body:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            names.append(statement.module or "")
    return {name.partition(".")[0] for name in names}


def test_modules_of_tests_import_no_peer_library_unless_left_out_without_it(
    pytestconfig: pytest.Config,
) -> None:
    """Else collecting the suite ends in an ImportError where the library is absent."""
    root = pytestconfig.rootpath
    conftest: Any = pytestconfig.pluginmanager.get_plugin(str(root / "conftest.py"))
    peers: dict[str, list[str]] = conftest.PEERS
    for file in sorted((root / "tests").rglob("*.py")):
        for name in peers.keys() & imported_at_the_top(file):
            left_out = any(file.is_relative_to(root / path) for path in peers[name])
            assert left_out, f"{file} imports {name}; call pytest.importorskip where it is used"
