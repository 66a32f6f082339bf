"""What importing and asking for help may load, and the frozen public surface."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

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
