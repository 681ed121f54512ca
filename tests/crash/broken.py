"""Stores with a fault built in: a harness that does not find them finds nothing."""

from pathlib import Path
from typing import Any

import apsw

import router.store.sqlite as sqlite
from router.core.output import Batch
from router.store.sqlite import SqliteStore


class SyncsCheckpointsOnly(SqliteStore):
    """Accepts before the log is synced."""

    def _connect(self) -> apsw.Connection:
        db = super()._connect()
        db.execute("pragma synchronous=normal")
        return db


class NeverSyncs(SqliteStore):
    """Leaves everything to the kernel."""

    def _connect(self) -> apsw.Connection:
        db = super()._connect()
        db.execute("pragma synchronous=off")
        return db


class BornInPlace(SqliteStore):
    """Is born under its own name, in steps, without a sync of the folder."""

    def _create(self) -> None:
        schema = Path(sqlite.__file__).with_name("schema.sql").read_text(encoding="utf-8")
        db = vars(sqlite)["apsw"].Connection(str(self.path))
        db.execute("pragma locking_mode=exclusive")
        db.execute(f"begin; {schema}; insert into meta values ('bus', 'x'), ('epoch', 0),"
                   " ('indexed_n', 0), ('frontier', 1); pragma user_version=3; commit")  # fmt: skip
        db.close()


class TrustsTheLog(SqliteStore):
    """Goes on with the log that it finds at a start, whatever the disk has of it."""

    def _settle_log(self) -> None:
        """The log is taken as the kernel shows it."""

    def _connect(self) -> Any:
        return _Rewriting(super()._connect(), "pragma wal_checkpoint(truncate)", "select 1")


class WritesTwice(SqliteStore):
    """Makes two transactions of one batch."""

    def write(self, batch: Batch) -> dict[int, int]:
        """Messages first."""
        rest = Batch(
            filed=batch.filed, spilled=batch.spilled, unfiled=batch.unfiled,
            outcomes=batch.outcomes, attempts=batch.attempts, frontier=batch.frontier,
        )  # fmt: skip
        repeated = super().write(Batch(messages=batch.messages))
        super().write(rest)
        return repeated


class SaysYes(SqliteStore):
    """Does not let an error through."""

    def write(self, batch: Batch) -> dict[int, int]:
        """Whatever happens."""
        try:
            return super().write(batch)
        except apsw.Error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            return {}


class _Rewriting:
    def __init__(self, db: apsw.Connection, old: str, new: str) -> None:
        self.db, self.old, self.new = db, old, new

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    def execute(self, sql: str, *values: Any) -> Any:
        """Say something else."""
        return self.db.execute(sql.replace(self.old, self.new), *values)
