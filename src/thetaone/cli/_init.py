"""``thetaone init``: a commented task file to begin with."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from thetaone.cli._options import completing
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
        metavar="[KIND]", autocompletion=completing(*KINDS), show_default=False,
        help="; ".join(f"{name}: {what}" for name, what in KINDS.items()) + ".",
    ),
]  # fmt: skip


def init(
    kind: Kind = "transformer",
    file: Path = typer.Argument(Path("task.py"), metavar="[FILE.py]", help="Where it goes."),
) -> None:
    """Write a task file that runs as it stands, to be changed into your own."""
    from thetaone.records import did_you_mean

    if kind not in KINDS:
        raise InputError(f"no kind {kind!r}: choose {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    if kind == "huggingface" and find_spec("transformers") is None:
        raise MissingExtraError("transformers", "transformers")
    text = (files("thetaone.tasks") / "templates" / f"{kind}.py").read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text.replace("task.py", str(file)))
    except FileExistsError:
        raise InputError(f"{file} is there already: name another file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be written: {error}") from error
    print(f"{file}: {KINDS[kind]}. Change what says CHANGE; it runs as it stands:")
    print(f"  thetaone check {file}")
    print(f"  thetaone transfer {file} --target 256 --report out/")
