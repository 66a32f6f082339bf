"""Where leases are written: a small file beside a journal, or a table of the database."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from thetaone.sweeps.storage._file_lock import FileLock
from thetaone.sweeps.storage._leases import Lease

Present = dict[str, Lease]


class FileBoard:
    """A JSON file that exists while a lease does.

    Args:
        journal: The journal beside which it lies.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(journal.name + ".leases")
        self._lock = FileLock(self._path)

    def read(self) -> Present:
        """All leases by key; a file that is not one holds none."""
        try:
            stored = json.loads(self._path.read_bytes())
            return {key: Lease(owner, beats) for key, (owner, beats) in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def replace(self, key: str, before: Lease | None, after: Lease) -> bool:
        """Write a lease if the one there is still ``before``; whether it was."""
        with self._lock:
            present = self.read()
            if present.get(key) != before:
                return False
            self._write({**present, key: after})
            return True

    def beat(self, owner: str) -> None:
        """Raise the count of the owner's leases."""
        self._change(
            lambda key, lease: Lease(owner, lease.beats + 1) if lease.owner == owner else lease
        )

    def drop(self, keys: Iterable[str], owner: str) -> None:
        """Remove those of the keys that the owner holds."""
        dropped = set(keys)
        self._change(lambda key, lease: None if key in dropped and lease.owner == owner else lease)

    def _change(self, change: Callable[[str, Lease], Lease | None]) -> None:
        with self._lock:
            changed = {key: change(key, lease) for key, lease in self.read().items()}
            self._write({key: lease for key, lease in changed.items() if lease is not None})

    def _write(self, present: Present) -> None:
        if not present:
            self._path.unlink(missing_ok=True)
            return
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.write_text(json.dumps({k: [v.owner, v.beats] for k, v in present.items()}))
        fresh.replace(self._path)  # a reader sees the old file or the new one, whole


class TableBoard:
    """A table of the database that holds the trials.

    Args:
        engine: SQLAlchemy's.
    """

    def __init__(self, engine: Any) -> None:
        import sqlalchemy as sql

        self._engine = engine
        self._table = sql.Table(
            "thetaone_leases", sql.MetaData(),
            sql.Column("key", sql.String(512), primary_key=True),
            sql.Column("owner", sql.String(128), nullable=False),
            sql.Column("beats", sql.Integer, nullable=False),
        )  # fmt: skip

    def create(self) -> None:
        """Make the table where there is none."""
        self._table.metadata.create_all(self._engine)

    def read(self) -> Present:
        """All leases by key."""
        with self._engine.connect() as connection:
            rows = connection.execute(self._table.select()).all()
        return {key: Lease(owner, beats) for key, owner, beats in rows}

    def replace(self, key: str, before: Lease | None, after: Lease) -> bool:
        """Write a lease if the one there is still ``before``; whether it was."""
        from sqlalchemy.exc import IntegrityError

        table = self._table
        with self._engine.begin() as connection:
            if before is not None:
                same = (
                    (table.c.key == key)
                    & (table.c.owner == before.owner)
                    & (table.c.beats == before.beats)
                )
                change = table.update().where(same).values(owner=after.owner, beats=after.beats)
                return connection.execute(change).rowcount == 1
        row = {"key": key, "owner": after.owner, "beats": after.beats}
        try:
            with self._engine.begin() as connection:
                connection.execute(table.insert().values(row))
        except IntegrityError:  # another was first
            return False
        return True

    def beat(self, owner: str) -> None:
        """Raise the count of the owner's leases."""
        table = self._table
        with self._engine.begin() as connection:
            mine = table.update().where(table.c.owner == owner)
            connection.execute(mine.values(beats=table.c.beats + 1))

    def drop(self, keys: Iterable[str], owner: str) -> None:
        """Remove those of the keys that the owner holds."""
        table = self._table
        with self._engine.begin() as connection:
            mine = (table.c.owner == owner) & table.c.key.in_(list(keys))
            connection.execute(table.delete().where(mine))
