"""Use an installed wheel as a stranger would: files, version, Python API and command line.

Run: ``python -I try_wheel.py FOLDER`` in an environment that has the wheel and nothing of the
checkout; the folder gets the report of a small transfer.
"""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import torch

import thetaone as t1

CHECKOUT = Path(__file__).parents[1]
TRANSFER = [
    "transfer", "lm", "--widths", "16,32", "--target", "64", "--lrs", "2^-8:2^-6", "--seeds", "0,1",
    "--steps", "5", "--memory", "64MiB",
]  # fmt: skip


def installed_files_are_those_of_the_source() -> None:
    installed = Path(t1.__file__).parent
    assert CHECKOUT not in installed.parents, f"{installed} is the checkout, not the wheel"
    source = CHECKOUT / "src" / "thetaone"
    shipped = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    shipped = {path for path in shipped if "__pycache__" not in path.parts}
    missing = sorted(str(path) for path in shipped if not (installed / path).is_file())
    assert not missing, f"not in the wheel: {missing}"


def links_lead_somewhere_from_an_index() -> None:
    readme = importlib.metadata.distribution("thetaone").read_text("METADATA") or ""
    relative = re.findall(r"\]\(((?!https?://|#)[^)]*)\)", readme)
    assert "](" in readme, "the wheel has no README"
    assert not relative, f"relative links in the README of the wheel: {relative}"


def main(folder: Path) -> None:
    installed_files_are_those_of_the_source()
    links_lead_somewhere_from_an_index()
    assert importlib.metadata.version("thetaone") == t1.__version__
    for name in t1.__all__:
        getattr(t1, name)
    base, target = torch.nn.Linear(16, 4), torch.nn.Linear(64, 4)
    print(t1.prescribe(target, base=base, optimizer=torch.optim.AdamW))
    command = [str(Path(sys.executable).with_name("thetaone")), *TRANSFER, "--report", str(folder)]
    subprocess.run(command, check=True, cwd=folder.parent)
    assert (folder / "index.html").stat().st_size > 0
    print(f"thetaone {t1.__version__}: the wheel works by itself")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
