"""Finds a task by name, module, file or object, and says what is missing."""

import hashlib
import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from thetaone.errors import TaskError

# cartpole joins a task with an estimator, so it lives where rooms may meet; found by name only
BUNDLED = {
    "cartpole": "thetaone.studies.cartpole",
    "digits": "thetaone.tasks.digits",
    "lm": "thetaone.tasks.lm",
}

# what a task may say about its training; the last five are options of the optimizer
TRAINING = (
    "optimizer", "options", "schedule", "clip", "precision", "accumulate", "depth",
    "weight_decay", "betas", "beta2", "eps", "momentum",
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
        return load_task, (self.source if self.reference is None else self.reference,)


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


def _find(ref: str) -> ModuleType:
    if ref in BUNDLED:
        return importlib.import_module(BUNDLED[ref])
    if _is_path(ref):
        return _load_file(Path(ref).resolve())
    try:
        return importlib.import_module(ref)
    except ImportError as error:
        raise TaskError(
            f"no task {ref!r}: {error}. Bundled tasks are {', '.join(BUNDLED)}; "
            "a file is given by its path, e.g. ./my_task.py"
        ) from error


def _load_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"_thetaone_task_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TaskError(f"no task at {path}: give the path of an existing .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, OSError) as error:
        del sys.modules[name]
        raise TaskError(f"cannot load the task at {path}: {error}") from error
    return module


def _is_path(ref: str) -> bool:
    return ref.endswith(".py") or "/" in ref or "\\" in ref


def _identity(ref: str) -> tuple[str, str]:
    """Name and reference of a task given as text."""
    if _is_path(ref):
        return Path(ref).stem, str(Path(ref).resolve())
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
    """Hash of the source text and, for an object, of its state.

    A module is its file. An object is the source of its three parts and of its class, and its
    attributes as far as they can be pickled. What these import is not followed.
    """
    digest = hashlib.sha256()
    if isinstance(source, ModuleType):
        digest.update(source_text(source))
        return digest.hexdigest()[:16]
    for piece in (type(source), source.model, source.batches, source.loss):
        digest.update(source_text(piece))
    for name, value in sorted(getattr(source, "__dict__", {}).items()):
        digest.update(name.encode())
        digest.update(_state(value))
    return digest.hexdigest()[:16]


def source_text(piece: Any) -> bytes:
    """Source of a module, class or function; its name where no source can be found."""
    try:
        return inspect.getsource(piece).encode()
    except (OSError, TypeError):  # typed at a prompt, or written in C: only its name is known
        return getattr(piece, "__qualname__", type(piece).__qualname__).encode()


def _state(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return type(value).__qualname__.encode()
