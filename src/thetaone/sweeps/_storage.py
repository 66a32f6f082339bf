"""Keeps trials in Optuna's storage, and finds them again: the same sweep asked twice runs once.

One Optuna study holds the trials of one experiment (task, fingerprint, optimizer) under one rule
and number of steps; a trial's parameters ``width``, ``lr`` and ``seed`` are its key. Only ended
trials are written, each in one append, so a sweep that is killed loses what was in training and
nothing else. Optuna's dashboard and samplers read the same file.

Two sweeps may write one storage at a time: Optuna appends under a lock. If both train the same
trial, both results are kept and the first is used; they are equal.
"""

import contextlib
import datetime
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from thetaone.errors import StorageError
from thetaone.records import Trial, TrialSpec

LOCK_GRACE_SECONDS = 5  # an append takes milliseconds: an older lock is of a killed process
_WIDEST, _SMALLEST_LR, _LARGEST_LR = 2**31, 1e-30, 1e30


class Store(Protocol):
    """Where ended trials are kept."""

    def known(self, specs: Iterable[TrialSpec]) -> dict[TrialSpec, Trial]:
        """Those of the specs that are kept and did not fail, with their trials."""
        ...

    def keep(self, spec: TrialSpec, trial: Trial) -> None:
        """Keep one ended trial."""
        ...


class NoStore:
    """Keeps nothing: what ``storage=None`` means."""

    def known(self, specs: Iterable[TrialSpec]) -> dict[TrialSpec, Trial]:
        """Nothing is known."""
        return {}

    def keep(self, spec: TrialSpec, trial: Trial) -> None:
        """Nothing is kept."""


class OptunaStore:
    """Keeps the trials of one experiment in an Optuna storage.

    Args:
        storage: An ``optuna.storages.BaseStorage``.
        experiment: What identifies task and optimizer; part of the studies' names.
        where: Path or URL, for messages.
    """

    def __init__(self, storage: Any, experiment: str, where: str) -> None:
        self._storage = storage
        self._experiment = experiment
        self._where = where
        self._studies: dict[str, int] = {}

    def known(self, specs: Iterable[TrialSpec]) -> dict[TrialSpec, Trial]:
        """Those of the specs that are kept and did not fail, with their trials."""
        from optuna.trial import TrialState

        wanted = set(specs)
        found: dict[TrialSpec, Trial] = {}
        for rule, n_steps in sorted({(spec.rule, spec.n_steps) for spec in wanted}):
            with self._translated():
                kept = self._storage.get_all_trials(
                    self._study(rule, n_steps), deepcopy=False, states=(TrialState.COMPLETE,)
                )
            for frozen in kept:
                spec = TrialSpec(**frozen.params, rule=rule, n_steps=n_steps)
                if spec in wanted and spec not in found:
                    found[spec] = Trial.model_validate(dict(frozen.user_attrs))
        return found

    def keep(self, spec: TrialSpec, trial: Trial) -> None:
        """Append one ended trial: complete (its value inf when diverged), or failed."""
        from optuna.distributions import FloatDistribution, IntDistribution
        from optuna.trial import FrozenTrial, TrialState

        now = datetime.datetime.now()
        failed = trial.status == "failed"
        frozen = FrozenTrial(
            number=-1, trial_id=-1, value=None if failed else trial.final_loss,
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            datetime_start=now - datetime.timedelta(seconds=trial.wall_seconds),
            datetime_complete=now,
            params={"width": spec.width, "lr": spec.lr, "seed": spec.seed},
            distributions={
                "width": IntDistribution(1, _WIDEST),
                "lr": FloatDistribution(_SMALLEST_LR, _LARGEST_LR, log=True),
                "seed": IntDistribution(0, _WIDEST),
            },
            user_attrs=trial.model_dump(mode="json"), system_attrs={}, intermediate_values={},
        )  # fmt: skip
        with self._translated():
            self._storage.create_new_trial(self._study(spec.rule, spec.n_steps), frozen)

    def _study(self, rule: str, n_steps: int) -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        name = f"{self._experiment}, {rule}, {n_steps} steps"
        if name not in self._studies:
            try:
                study = self._storage.create_new_study([StudyDirection.MINIMIZE], name)
            except DuplicatedStudyError:
                study = self._storage.get_study_id_from_name(name)
            self._studies[name] = study
        return self._studies[name]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        with _quiet(), _as_storage_error(self._where):
            yield


def open_store(storage: str | Path | None, *, experiment: str) -> Store:
    """The store behind a path, a database URL, or None for none.

    Args:
        storage: Path of a journal file (made when absent) or a URL such as
            ``postgresql://host/name`` or ``sqlite:///sweep.db``.
        experiment: What identifies task and optimizer.

    Raises:
        StorageError: The journal is not one, or the database cannot be reached.
    """
    if storage is None:
        return NoStore()
    where = str(storage)
    with _quiet(), _as_storage_error(where):
        backend = _database(where) if "://" in where else _journal(Path(where))
    return OptunaStore(backend, experiment, where)


def _database(url: str) -> Any:
    from optuna.storages import RDBStorage

    return RDBStorage(url)


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_GRACE_SECONDS)
    if _is_torn(path):
        lock.acquire()
        try:
            _cut_torn_line(path)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _is_torn(path: Path) -> bool:
    """Whether the last line lacks its end: a writer was killed in the middle of it."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"


def _cut_torn_line(path: Path) -> None:
    """Drop a last line without end, which Optuna would glue to the next one.

    The line was never acknowledged to anyone: the trial it began to describe is trained again.
    """
    if not _is_torn(path):
        return
    whole = path.read_bytes()
    end = whole.rfind(b"\n") + 1
    if end == 0:
        raise ValueError("its only line is not a complete record")
    with path.open("r+b") as file:
        file.truncate(end)


@contextlib.contextmanager
def _as_storage_error(where: str) -> Iterator[None]:
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, ImportError, OptunaError, SQLAlchemyError) as error:
        raise StorageError(
            f"cannot use the storage {where}: {_first_line(error)}. "
            "Pass a path that can be written, or the URL of a database that is up"
        ) from error
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        raise StorageError(
            f"the storage {where} is damaged or not a journal of Optuna: {_first_line(error)}. "
            "Move it away to start afresh, or restore a copy"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's messages about new studies and applied migrations, held back."""
    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
