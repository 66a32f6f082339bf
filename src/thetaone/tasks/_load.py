"""Finds a task by name, module, file or object, and says what is missing."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from thetaone._contents import contents_digest, module_digest
from thetaone.errors import STOPS, TaskError, ThetaOneError, first_line
from thetaone.records import did_you_mean, local_path
from thetaone.tasks._source_files import load_file

# cartpole joins a task with an estimator, so it lives where rooms may meet; found by name only
BUNDLED = {
    "cartpole": "thetaone.studies.cartpole",
    "digits": "thetaone.tasks.digits",
    "lm": "thetaone.tasks.lm",
}

# what a task may say about its training; the last six are options of the optimizer
TRAINING = (
    "optimizer", "options", "schedule", "clip", "precision", "accumulate", "depth",
    "weight_decay", "betas", "beta1", "beta2", "eps", "momentum",
)  # fmt: skip

_PARTS = {
    "model": "def model(width): return <torch.nn.Module of that width>",
    "batches": "def batches(seed): yield batches, the same for the same seed",
    "loss": "def loss(model, batch): return <scalar tensor>",
}


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """A task whose parts are known to exist; pickled by reference when it has one.

    Attributes:
        name: For tables and titles.
        model: ``model(width)``, perhaps ``model(width, depth)``.
        batches: ``batches(seed)``.
        loss: ``loss(model, batch)``.
        evaluate: ``evaluate(model)``, or None when the task has none.
        defaults: ``widths``, ``lrs``, ``seeds``, ``steps``, as far as the task gives them.
        training: How it is trained, as far as the task says: names of ``TRAINING``.
        fingerprint: Hash of the task's source and state: results of another are not reused.
        reference: Bundled name, dotted module or absolute path; None for an object.
    """

    name: str
    model: Callable[..., nn.Module]
    batches: Callable[[int], Iterator[Any]]
    loss: Callable[[Any, Any], Any]
    evaluate: Callable[[Any], float] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    training: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fingerprint: str
    reference: str | None = None
    source: Any = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Callable[..., "LoadedTask"], tuple[Any, ...]]:
        if self.reference is None:
            return load_task, (self.source,)
        return _load_same, (self.reference, self.fingerprint)


def load_task(ref: Any) -> LoadedTask:
    """The task that ``ref`` stands for.

    Args:
        ref: Name of a bundled task (``"lm"``, ``"digits"``), path of a Python file, dotted name of
            a module, or any object or module with ``model``, ``batches`` and ``loss``.

    Returns:
        The task, its three parts checked to be callable.

    Raises:
        TaskError: Nothing is found under that name, the file cannot be loaded, or a part is
            missing; says which and what to write.

    Examples:
        >>> load_task("lm").defaults["widths"]
        (32, 64, 128)
    """
    if isinstance(ref, LoadedTask):
        return ref
    if isinstance(ref, str | Path):
        return _wrap(_find(str(ref)), *_identity(str(ref)))
    if isinstance(ref, ModuleType) and sys.modules.get(ref.__name__) is ref:
        if ref.__name__ != "__main__":
            return _wrap(ref, ref.__name__.rpartition(".")[2], ref.__name__)
        return _wrap(ref, "__main__", None)
    name = getattr(ref, "__name__", None) or type(ref).__name__
    return _wrap(ref, str(getattr(ref, "name", name)), None)


def _load_same(reference: str, fingerprint: str) -> LoadedTask:
    """The task of a reference, in another process.

    Raises:
        TaskError: Its code is no longer what the sweep began with.
    """
    task = load_task(reference)
    if task.fingerprint != fingerprint:
        raise TaskError(f"task {reference} was changed while a sweep of it runs; start it again")
    return task


def _find(ref: str) -> ModuleType:
    if ref in BUNDLED:
        return importlib.import_module(BUNDLED[ref])
    if _is_path(ref):
        return load_file(local_path(ref).resolve())
    try:
        return importlib.import_module(ref)
    except (ThetaOneError, *STOPS):
        raise
    except BaseException as error:  # the user's module may raise anything
        raise TaskError(
            f"no task {ref!r}: {type(error).__name__}: {first_line(error)}. Bundled tasks are "
            f"{', '.join(BUNDLED)}; a file is given by its path, e.g. ./my_task.py"
            f"{did_you_mean(ref, BUNDLED)}"
        ) from error


def _is_path(ref: str) -> bool:
    return ref.endswith(".py") or "/" in ref or "\\" in ref


def _identity(ref: str) -> tuple[str, str]:
    """Name and reference of a task given as text."""
    if _is_path(ref):
        return Path(ref).stem, str(local_path(ref).resolve())
    return ref.rpartition(".")[2], ref


def _wrap(source: Any, name: str, reference: str | None) -> LoadedTask:
    where = f"task {name}" + (f" ({reference})" if reference not in (None, name) else "")
    for part, advice in _PARTS.items():
        found = getattr(source, part, None)
        if not callable(found):
            problem = "lacks" if found is None else f"has {type(found).__name__} instead of"
            raise TaskError(f"{where} {problem} a function {part!r}; write: {advice}")
    return LoadedTask(
        name=name, model=source.model, batches=source.batches, loss=source.loss,
        evaluate=getattr(source, "evaluate", None), defaults=_defaults(source, where),
        training={name: getattr(source, name) for name in TRAINING if hasattr(source, name)},
        fingerprint=_fingerprint(source), reference=reference, source=source,
    )  # fmt: skip


def _defaults(source: Any, where: str) -> Mapping[str, Any]:
    defaults = getattr(source, "defaults", {})
    known = {"widths", "lrs", "seeds", "steps"}
    if not isinstance(defaults, Mapping) or not known.issuperset(defaults):
        raise TaskError(
            f"defaults of {where} must be a mapping with keys among {', '.join(sorted(known))}; "
            f"it is {defaults!r}"
        )
    steps = {"steps": source.steps} if hasattr(source, "steps") else {}
    return {**defaults, **steps}


def _fingerprint(source: Any) -> str:
    """Digest of the code that the task runs and of the state that it holds.

    A module is its bytes and what its names hold; an object its class, its three parts and its
    attributes. What the code loads from elsewhere is followed, up to installed packages.
    """
    if isinstance(source, ModuleType):
        return contents_digest(module_digest(source), source)[:16]
    parts = [source.model, source.batches, source.loss]
    return contents_digest(type(source), *parts, source)[:16]
