"""``run.toml``: a settled transfer as the file that ``--config`` reads."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thetaone.errors import ReportError
from thetaone.studies.request._request import Request, Size

WRITTEN = ": thetaone transfer --config run.toml"  # ends the first line of such a file


def run_file(request: Request, target: Size, named: Mapping[str, Any]) -> str:
    """Text of a TOML file with all that was asked, every default filled in.

    Args:
        request: What is swept, and how it is trained.
        target: The large model's size.
        named: Further options, e.g. ``memory``; None where not set.

    Returns:
        The text. What only a program can say (a task that is an object, a schedule that is a
        function, an optimizer class) stands as a comment, since the task brings it along.
    """
    loop = request.loop
    values: dict[str, Any] = {
        "task": request.task.reference, "widths": sorted({s.width for s in request.sizes}),
        "depths": sorted({s.depth for s in request.sizes if s.depth}) or None,
        "target": target.width, "target_depth": target.depth, "base": request.base.width,
        "lrs": list(request.lrs), "seeds": list(request.seeds), "steps": request.steps,
        "optimizer": request.optimizer_name,
        "schedule": None if loop.factors else loop.schedule, "clip": loop.clip,
        "precision": loop.precision, "accumulate": loop.accumulate,
        "search": None if request.search == "grid" else request.search,
        "choose": None if request.choose == "loss" else request.choose, **named,
    }  # fmt: skip
    lines = [f"# {request.task.name}{WRITTEN}"]
    lines += [_line(name, value) for name, value in values.items() if value is not None]
    if request.task.reference is None:
        lines.append("# task: an object of a program; pass its file")
    if loop.factors:
        lines.append("# schedule: the task's own function")
    for section, chosen in (("option", request.options), ("choice", request.choices)):
        if chosen:
            lines += ["", f"[{section}]", *(_line(name, value) for name, value in chosen.items())]
    return "\n".join(lines) + "\n"


def write_run_file(folder: Path, request: Request, target: Size, named: Mapping[str, Any]) -> None:
    """Write ``run.toml`` into the folder of a report; one written by hand is kept beside it.

    Raises:
        ReportError: The disk does not take it.
    """
    path = folder / "run.toml"
    try:
        if path.is_file() and WRITTEN not in path.read_text(encoding="utf-8").partition("\n")[0]:
            kept = path.replace(folder / "run.by-hand.toml")
            warnings.warn(
                f"{path} was written by hand: kept as {kept.name}", RuntimeWarning, stacklevel=2
            )
        path.write_text(run_file(request, target, named), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error}") from error


def _line(name: str, value: Any) -> str:
    try:
        return f"{name} = {_toml(value)}"
    except TypeError:
        return f"# {name}: {value!r}, which only a program can say"


def _toml(value: Any) -> str:
    """A value as TOML writes it; None, which it has not, as a word."""
    if isinstance(value, Mapping):
        entries = (f"{json.dumps(name)} = {_toml(entry)}" for name, entry in value.items())
        return f"{{ {', '.join(entries)} }}"
    return json.dumps("None" if value is None else value, ensure_ascii=False)
