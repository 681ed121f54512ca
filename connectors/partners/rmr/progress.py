"""How far a load has come, and what was published of each worker: one SQLite file.

A page and its cursor are kept together, once the bus has accepted the page. Killed before that, the
connector publishes the page again, under the same ids. The file holds no personal data: the
register's ids, and digests. Everything here blocks; nothing raises but sqlite3.Error.
"""

import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from connectors.runtime.ownfile import refuse_link
from proto.exits import StartError
from proto.wording import text

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS position (only INTEGER PRIMARY KEY CHECK (only = 1), state BLOB);
CREATE TABLE IF NOT EXISTS wish (only INTEGER PRIMARY KEY CHECK (only = 1));
CREATE TABLE IF NOT EXISTS worker (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,  -- how many times it was published
    load INTEGER NOT NULL     -- the full load that saw it last
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Position:
    """Where the loads are. Times are seconds since 1970-01-01 UTC.

    `load` counts full loads; `loading` tells whether that one is under way: `after` is its cursor,
    `loaded` of `total` workers are done, `since_next` is from where changes are asked for after it.
    `since` is the cursor of changes.
    """

    load: int = 0
    loading: bool = False
    after: str | None = None
    loaded: int = 0
    total: int = 0
    since_next: str | None = None
    since: str | None = None
    full_at: float = 0.0


@dataclass(frozen=True)
class Known:
    """What was published of a worker last, and how many times it was."""

    digest: bytes
    number: int


class Progress:
    """The file of one connector."""

    def __init__(self, path: Path) -> None:
        """Raises StartError when the file cannot be used."""
        self._lock = threading.Lock()
        try:
            refuse_link(path)
            path.touch(mode=0o600, exist_ok=True)
            if path.stat().st_mode & 0o077:  # an earlier version left it open to others
                path.chmod(0o600)
        except OSError as error:
            raise StartError(text("rmr.no_state", path=path, problem=error.strerror)) from None
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=5
            )
        except sqlite3.Error as error:
            raise StartError(text("rmr.no_state", path=path, problem=error)) from None
        try:
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(SCHEMA)
            self.position = self._load()
            self.wanted = bool(self._connection.execute("SELECT 1 FROM wish").fetchone())
        except (sqlite3.Error, msgspec.DecodeError, msgspec.ValidationError) as error:
            self._connection.close()
            raise StartError(text("rmr.no_state", path=path, problem=error)) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def known(self, ids: Iterable[str]) -> dict[str, Known]:
        """Return what is known of these workers."""
        found = {}
        with self._lock:
            for id in ids:
                row = self._connection.execute(
                    "SELECT digest, number FROM worker WHERE id = ?", (id,)
                ).fetchone()
                if row is not None:
                    found[id] = Known(*row)
        return found

    def keep(self, workers: dict[str, Known], gone: Iterable[str], position: Position) -> None:
        """Keep a page and where it ends, both or neither."""
        rows = [(id, one.digest, one.number, position.load) for id, one in workers.items()]
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT INTO worker VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                    " digest = excluded.digest, number = excluded.number, load = excluded.load",
                    rows,
                )
                self._connection.executemany(
                    "DELETE FROM worker WHERE id = ?", [(id,) for id in gone]
                )
                self._write(position)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self.position = position

    def move(self, position: Position) -> None:
        """Keep where the loads are."""
        self.keep({}, (), position)

    def want_full(self) -> None:
        """Remember that somebody wants a full load, until one begins."""
        with self._lock:
            self._connection.execute("INSERT OR IGNORE INTO wish VALUES (1)")
            self.wanted = True

    def begin(self, position: Position) -> None:
        """Keep that a full load begins: whoever wanted one has it."""
        self.move(position)
        with self._lock:
            self._connection.execute("DELETE FROM wish")
            self.wanted = False

    def unseen(self, count: int) -> dict[str, Known]:
        """Return at most `count` workers whom the full load under way has not seen."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, digest, number FROM worker WHERE load < ? ORDER BY id LIMIT ?",
                (self.position.load, count),
            ).fetchall()
        return {id: Known(digest, number) for id, digest, number in rows}

    def counts(self) -> tuple[int, int]:
        """Return how many workers are known, and how many of them the full load has not seen."""
        with self._lock:
            known, unseen = self._connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE load < ?) FROM worker",
                (self.position.load,),
            ).fetchone()
        return int(known), int(unseen)

    def _load(self) -> Position:
        with closing(self._connection.execute("SELECT state FROM position")) as rows:
            row = rows.fetchone()
        return Position() if row is None else msgspec.msgpack.decode(row[0], type=Position)

    def _write(self, position: Position) -> None:
        self._connection.execute(
            "INSERT INTO position VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET"
            " state = excluded.state",
            (msgspec.msgpack.encode(position),),
        )
