"""Opens a storage, and turns what goes wrong there into words without passwords."""

import contextlib
import functools
import importlib.util
import os
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from thetaone.errors import InputError, MissingExtraError, StorageError, first_line
from thetaone.records import hide_passwords, local_path, passwords_in
from thetaone.sweeps.identity import Starts
from thetaone.sweeps.storage._boards import FileBoard, TableBoard
from thetaone.sweeps.storage._journal import Journal
from thetaone.sweeps.storage._leases import Leases
from thetaone.sweeps.storage._store import NoStore, OptunaStore, quiet

TRIES = 8  # to open a database that others open for the first time at the same moment
_SQLITE_WAITS = 60  # seconds for another writer to finish


def open_store(
    storage: str | Path | None,
    *,
    experiment: str,
    starts: Starts | None = None,
    fresh: bool = False,
) -> NoStore | OptunaStore:
    """The store behind a path, a database URL, or None for none.

    Args:
        storage: Path of a journal file (made when absent) or a URL such as
            ``postgresql://host/name`` or ``sqlite:///sweep.db``.
        experiment: What identifies task and optimizer.
        starts: What the trials of each width and seed start from; None: not compared.
        fresh: Whether what is stored now counts as absent.

    Raises:
        StorageError: The journal is not one, or the database cannot be reached.
        MissingExtraError: The database's driver is not installed.
    """
    if storage is None:
        return NoStore()
    where = str(storage) if "://" in str(storage) else str(local_path(storage))
    translated = functools.partial(_translated, where)
    with translated():
        from optuna.storages import JournalStorage

        if "://" in where:
            journal = None
            backend, board = _database(where)
        else:
            journal = _journal(Path(where))
            backend, board = JournalStorage(cast(Any, journal)), FileBoard(Path(where))
    return OptunaStore(
        backend, Leases(board), experiment=experiment, where=hide_passwords(where),
        translated=translated, starts=starts, fresh=fresh, journal=journal,
    )  # fmt: skip


def require_storage(storage: Any) -> None:
    """Refuse what is no place for trials.

    Raises:
        InputError: Neither a path nor a URL; ``str(5)`` would name a file.
    """
    if storage is not None and not isinstance(storage, str | os.PathLike):
        raise InputError(
            f"storage={storage!r} of type {type(storage).__name__}: pass the path of a file, e.g. "
            "'sweep.journal', or a database's URL, e.g. 'sqlite:///sweep.db'"
        )


def _journal(path: Path) -> Journal:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Journal(path)


def _database(url: str) -> tuple[Any, TableBoard]:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": _SQLITE_WAITS}}
    for attempt in range(TRIES):
        try:
            storage = RDBStorage(_with_driver(url), engine_kwargs=options)
            board = TableBoard(storage.engine)
            board.create()
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            # another process makes the same tables: "already exists", "is locked"
            if attempt == TRIES - 1 or not _is_a_race(error):
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return storage, board
    raise AssertionError("the last try returns or raises")


def _is_a_race(error: Exception) -> bool:
    words = str(error).lower()
    return any(sign in words for sign in ("already exists", "locked", "unique", "duplicate"))


def _with_driver(url: str) -> str:
    """The URL with the PostgreSQL driver that is installed.

    Raises:
        MissingExtraError: None is.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        return url
    if importlib.util.find_spec("psycopg") is not None:
        return f"postgresql+psycopg://{rest}"
    if scheme != "postgresql+psycopg" and importlib.util.find_spec("psycopg2") is not None:
        return f"postgresql+psycopg2://{rest}"
    raise MissingExtraError("psycopg", "postgres")


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Optuna's and the database's errors as ``StorageError``; Optuna's small talk held back."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    shown = hide_passwords(where)
    try:
        with quiet():
            yield
    except MissingExtraError:
        raise
    except (OSError, ImportError, OptunaError, SQLAlchemyError) as error:
        raise StorageError(
            f"cannot use the storage {shown}: {_first_line(error, where)}. "
            "Pass a path that can be written, or the URL of a database that is up"
        ) from _unless_secret(error, where)
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        raise StorageError(
            f"the storage {shown} is damaged or not a journal of Optuna: "
            f"{_first_line(error, where)}. Move it away to start afresh, or restore a copy"
        ) from _unless_secret(error, where)


def _first_line(error: Exception, where: str) -> str:
    text = first_line(error)
    for password in passwords_in(where):
        text = text.replace(password, "***").replace(urllib.parse.unquote(password), "***")
    return hide_passwords(text)


def _unless_secret(error: Exception, where: str) -> Exception | None:
    """The cause for a traceback, unless the driver may repeat a password in it."""
    return None if passwords_in(where) else error
