"""Options of the commands, each with one meaning wherever it stands, and what their text means."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from thetaone.cli._numbers import parse_integers
from thetaone.errors import InputError
from thetaone.records import did_you_mean, local_path

TUNING = "How it is trained"
TASKS = ("lm", "digits", "cartpole")
CHOICES = (
    "roles", "folds", "decay", "decay_vectors", "depth_exponent", "branches", "frozen",
)  # fmt: skip
ENGINES = ("auto", "serial", "processes", "stacked", "ray")
SCHEDULES = ("constant", "warmup-cosine", "warmup-linear", "wsd")
_POWER = re.compile(r"(\d{1,3})\^(-?\d{1,2}(?:\.\d+)?)")  # 2^-10, as rates are written
_WORDS = {"true": True, "yes": True, "false": False, "no": False, "none": None}
OPTIMIZERS = ("AdamW", "Adam", "SGD", "NAdam", "RMSprop", "Lion", "Muon+AdamW")  # not all there are


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """A TOML file fills what the command line leaves open."""
    if path is None:
        return None
    try:
        entries = tomllib.loads(local_path(path).read_text(encoding="utf-8-sig"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config={path}: cannot be read: {error}") from error
    options = _options_of(context.command)
    values: dict[str, Any] = {}
    others: list[str] = []
    for name, value in ((name.replace("-", "_"), value) for name, value in entries.items()):
        if name in values:
            raise InputError(f"--config={path}: {name} stands there twice, once with - and with _")
        if name in options:
            values[name] = _as_option(options[name], value, where=f"--config={path}: {name}")
        elif name in _options_elsewhere(context):
            others.append(name)
        else:
            raise InputError(
                f"--config={path}: {name} is no option of {context.command.name}; it has "
                f"{', '.join(sorted(options))}" + did_you_mean(name, options)
            )
    if others:
        print(
            f"thetaone: --config={path}: {context.command.name} takes no "
            f"{', '.join(sorted(others))}; other commands do",
            file=sys.stderr,
        )
    context.default_map = {options[name].name: value for name, value in values.items()}
    return path


def _options_of(command: Any) -> dict[str, Any]:
    """The parameters of a command by what is typed for them: ``json`` for ``--json``."""
    return {
        max(parameter.opts, key=len).lstrip("-").replace("-", "_"): parameter
        for parameter in command.params
        if parameter.name != "config"
    }


def _options_elsewhere(context: typer.Context) -> set[str]:
    """Options of the other commands that read such a file, so that one file does for all."""
    commands = getattr(context.parent and context.parent.command, "commands", {}).values()
    readers = [c for c in commands if any(p.name == "config" for p in c.params)]
    return set[str]().union(*map(_options_of, readers))


def _as_option(parameter: Any, value: Any, *, where: str) -> Any:
    """A value of a TOML file as it would stand on the command line.

    Raises:
        InputError: A truth value for an option that takes a number or a text.
    """
    if isinstance(value, bool) and not getattr(parameter, "is_flag", False):
        raise InputError(f"{where} = {str(value).lower()}: a number or a text is needed")
    if isinstance(value, dict):
        written = _joined if parameter.name == "axis" else repr
        texts = {name: v if isinstance(v, str) else written(v) for name, v in value.items()}
        return [f"{name}={text}" for name, text in texts.items()]
    if getattr(parameter, "multiple", False):
        return [str(entry) for entry in (value if isinstance(value, list) else [value])]
    return _joined(value) if isinstance(value, list) else value


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def completing(*words: str) -> Callable[[str], list[str]]:
    """What a shell offers after an option: those of the words that go on from what is typed."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _complete_task(incomplete: str) -> list[str]:
    """Bundled tasks, and the files and folders that begin so."""
    here = Path(incomplete)
    folder = here if incomplete.endswith("/") else here.parent
    files = [
        f"{path}/" if path.is_dir() else str(path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.suffix == ".py" or path.is_dir()
    ]
    return [word for word in (*TASKS, *sorted(files)) if word.startswith(incomplete)]


Task = Annotated[
    str,
    typer.Argument(
        help="A bundled task (lm, digits), a task file, or a dotted module.",
        autocompletion=_complete_task,
    ),
]
Widths = Annotated[
    str | None, typer.Option(help="E.g. 32,64,128; the task's own by default.", show_default=False)
]
Depths = Annotated[
    str | None,
    typer.Option(
        help="Depths of model(width, depth): several at one width, or one a width, e.g. 2,4."
    ),
]
Lrs = Annotated[str | None, typer.Option(help="E.g. 2^-12:2^-3 (octaves), or 0.001,0.01.")]
Seeds = Annotated[str | None, typer.Option(help="Which, e.g. 0,1; two or more give an interval.")]
Storage = Annotated[
    str,
    typer.Option(
        help="Journal file or database URL; what it holds is not trained again. "
        "sweep.journal, in the report's folder if there is one."
    ),
]
Axis = Annotated[
    list[str] | None,
    typer.Option(
        help="A further axis, e.g. weight_decay=0,0.1; may be repeated: a full product.",
        metavar="NAME=VALUES",
    ),
]  # fmt: skip
Steps = Annotated[int | None, typer.Option(help="Steps of each training; the task's own.")]
Base = Annotated[
    int | None,
    typer.Option(
        help="Width at which rates are meant and nothing is rescaled: the target's, or the least.",
    ),
]  # fmt: skip
Search = Annotated[
    str, typer.Option(help="grid, or auto: fewer trainings, and beyond the grid where needed.")
]
Choose = Annotated[
    str, typer.Option(help="What trials are compared by: loss, or the task's evaluate.")
]
Engine = Annotated[
    str,
    typer.Option(
        help="auto, serial, processes, stacked or ray.", autocompletion=completing(*ENGINES)
    ),
]
_TARGET = typer.Option(help="Width of the large model.", show_default=False)
Target = Annotated[int | None, _TARGET]
RequiredTarget = Annotated[int, _TARGET]
TargetDepth = Annotated[
    int | None, typer.Option(help="Depth of the large model; the largest of --depths.")
]
Parametrization = Annotated[
    str, typer.Option(help="mup, or sp for plain torch.", autocompletion=completing("mup", "sp"))
]
Lr = Annotated[
    float | None,
    typer.Option(
        help="Learning rate; the middle one of the task's own, 0.01 or 0.001 for a policy."
    ),
]
Width = Annotated[int | None, typer.Option(help="Width of the model.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Optimizer = Annotated[
    str | None,
    typer.Option(
        help="AdamW, SGD, Lion, …, or a mixture: Muon+AdamW; the task's own, else AdamW.",
        rich_help_panel=TUNING, autocompletion=completing(*OPTIMIZERS),
    ),
]  # fmt: skip
WeightDecay = Annotated[
    float | None, typer.Option(help="Of the optimizer.", rich_help_panel=TUNING)
]
Beta2 = Annotated[float | None, typer.Option(help="Adam's second β.", rich_help_panel=TUNING)]
Option = Annotated[
    list[str] | None,
    typer.Option(
        help="Any other option of the optimizer's constructor, e.g. eps=1e-8; may be repeated.",
        metavar="NAME=VALUE", rich_help_panel=TUNING,
    ),
]  # fmt: skip
Choice = Annotated[
    list[str] | None,
    typer.Option(
        help="A choice of the prescription: decay=independent, frozen=skip, "
        "roles={'head': 'output'}; may be repeated.",
        metavar="NAME=VALUE", rich_help_panel=TUNING,
    ),
]  # fmt: skip
Schedule = Annotated[
    str | None,
    typer.Option(
        help="Of the learning rate: constant, warmup-cosine:0.1, warmup-linear, wsd.",
        rich_help_panel=TUNING, autocompletion=completing(*SCHEDULES),
    ),
]  # fmt: skip
Clip = Annotated[
    float | None,
    typer.Option(help="Largest global norm of the gradients.", rich_help_panel=TUNING),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32 or bf16.", rich_help_panel=TUNING, autocompletion=completing("fp32", "bf16")
    ),
]
Accumulate = Annotated[
    int | None,
    typer.Option(help="Parts into which each batch is split.", rich_help_panel=TUNING),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with any of these options; the command line goes first.",
        callback=_read_config, is_eager=True,
    ),
]  # fmt: skip


def integers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Whole numbers separated by commas; None when the option is not there."""
    return None if not text else parse_integers(text, option=option)


def axes(texts: Iterable[str] | None) -> dict[str, tuple[float, ...]]:
    """Further axes of a sweep, by name.

    Raises:
        InputError: One is not ``name=value,value``, or stands there twice.
    """
    from thetaone.sweeps import parse_axis

    read: dict[str, tuple[float, ...]] = {}
    for name, values in map(parse_axis, texts or ()):
        if name in read:
            raise InputError(f"--axis {name} stands there twice: write all its values in one")
        read[name] = values
    return read


def optimizer_options(
    weight_decay: float | None, beta2: float | None, pairs: Iterable[str] | None
) -> dict[str, Any]:
    """Options of the optimizer's constructor.

    Raises:
        InputError: A pair is not ``name=value``.

    Examples:
        >>> optimizer_options(0.1, None, ["eps=1e-9", "foreach=False"])
        {'weight_decay': 0.1, 'eps': 1e-09, 'foreach': False}
    """
    named: dict[str, Any] = {"weight_decay": weight_decay, "beta2": beta2}
    options = {name: value for name, value in named.items() if value is not None}
    return options | _pairs(pairs, "--option", "eps=1e-8")


def prescription_choices(pairs: Iterable[str] | None) -> dict[str, Any]:
    """Choices of ``t1.prescribe``.

    Raises:
        InputError: A pair is not ``name=value``, or there is no such choice.

    Examples:
        >>> prescription_choices(["frozen=skip", "roles={'head': 'output'}"])
        {'frozen': 'skip', 'roles': {'head': 'output'}}
    """
    chosen = _pairs(pairs, "--choice", "frozen=skip")
    for name in chosen:
        if name not in CHOICES:
            raise InputError(
                f"--choice={name}: there is none of that name; choose {', '.join(CHOICES)}"
                f"{did_you_mean(name, CHOICES)}"
            )
    return chosen


def _pairs(pairs: Iterable[str] | None, option: str, example: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not (equals and name.isidentifier() and text):
            raise InputError(f"{option}={pair}: write name=value, e.g. {option} {example}")
        values[name] = _value(text)
    return values


def _value(text: str) -> Any:
    """What a text means: Python's literals, powers as in ``2^-10``, words for truth and nothing.

    Examples:
        >>> [_value(text) for text in ("0.1", "(0.9, 0.95)", "2^-2", "no", "None", "skip")]
        [0.1, (0.9, 0.95), 0.25, False, None, 'skip']
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if power := _POWER.fullmatch(text):
        return float(power[1]) ** float(power[2])
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
