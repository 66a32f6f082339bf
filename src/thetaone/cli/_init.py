"""``thetaone init``: a commented task file to begin with."""

import json
import shlex
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from thetaone.cli._options import completing
from thetaone.cli._results import require_writable
from thetaone.errors import InputError, MissingExtraError

KINDS = {
    "mlp": "a multilayer perceptron on a table",
    "transformer": "a small GPT on text",
    "huggingface": "a model of Hugging Face's from its config",
    "conv": "a convolutional network on images",
}
Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", autocompletion=completing(*KINDS), show_default=False,
        help="; ".join(f"{name}: {what}" for name, what in KINDS.items()) + ".",
    ),
]  # fmt: skip


def init(
    kind: Kind = "transformer",
    file: Path = typer.Argument(Path("task.py"), metavar="FILE.py", help="Where it goes."),
) -> None:
    """Write a task file that runs as it stands, to be changed into your own."""
    _require_kind(kind)
    path = _require_new(file)
    name = shlex.quote(f"./{file}" if str(file).startswith("-") else str(file))
    text = (files("thetaone.tasks") / "templates" / f"{kind}.py").read_text(encoding="utf-8")
    written = json.dumps(name, ensure_ascii=False)[1:-1]  # in a docstring, whatever is in the name
    try:
        with path.open("x", encoding="utf-8") as new:
            new.write(text.replace("task.py", written))
    except OSError as error:  # the disk filled, or another made the file meanwhile
        raise InputError(f"{file} cannot be written: {error}") from error
    print(f"{file}: {KINDS[kind]}. Change what says CHANGE; it runs as it stands:")
    print(f"  thetaone check {name}")
    print(f"  thetaone transfer {name} --target 256 --report out/")


def _require_kind(kind: str) -> None:
    """Refuse a kind that is none, or whose models' library is absent."""
    from thetaone.records import did_you_mean

    if kind.endswith(".py"):
        raise InputError(
            f"{kind} stands where the kind of model goes: write e.g. thetaone init mlp "
            f"{shlex.quote(kind)}; there are {', '.join(KINDS)}"
        )
    if kind not in KINDS:
        raise InputError(f"no kind {kind!r}: choose {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    if kind == "huggingface" and find_spec("transformers") is None:
        raise MissingExtraError("transformers", "transformers")


def _require_new(file: Path) -> Path:
    """The path of a Python file that is not there and can be written."""
    path = require_writable(file, example="task.py") or file
    if path.is_file():
        raise InputError(f"{file} is there already: name another file")
    if path.suffix != ".py":
        raise InputError(f"{file}: a task's file ends with .py; name it e.g. {path.stem}.py")
    return path
