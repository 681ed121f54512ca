"""The embedded store: SQLite with a write-ahead log, synced at every commit.

Why it is opened the way it is (docs/decisions has the measurements):
- The database is born under synchronous=EXTRA, closed, its folder synced, and only then used in
  WAL mode with synchronous=FULL: otherwise a power loss may bring the birth journal back to life.
- Every start truncates the log into the database and commits a new epoch before anything is
  accepted: after a failed sync the page cache may show data that the disk does not have.
- One connection with locking_mode=EXCLUSIVE, used by one thread.
- An error while writing is not survived: the caller ends the process.

Rows go in by statements of 512 to 1 rows: one step of SQLite without the interpreter lock
per statement instead of per row, which matters more than anything else here.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar
from zlib import crc32

import apsw

from router.core.delivery import State
from router.core.output import Batch, OpenDelivery
from router.store.contract import Opened, StoreError

FILE: Final = "journal.db"
SCHEMA_VERSION: Final = 1
SQLITE_VERSION_MIN: Final = 3_051_003  # older ones can corrupt a WAL database when it is reset
PAGE_BYTES: Final = 8192
CHECKPOINT_PAGES: Final = 8192
QUICK_CHECK_BYTES_MAX: Final = 64 * 1024 * 1024
Row = TypeVar("Row")
CHUNKS: Final = (512, 128, 32, 8, 1)
STATE_WORDS: Final = {State.SETTLED: "settled", State.DEAD: "dead", State.EXPIRED: "expired"}


class SqliteStore:
    """`router.store.contract.Store` in one file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._pruned_n = 0
        self._indexed_n = 0
        self._open_from = 1

    # -- opening ----------------------------------------------------------------------------------

    def open(self) -> Opened:
        """See Store.open."""
        if apsw.SQLITE_VERSION_NUMBER < SQLITE_VERSION_MIN:
            raise StoreError(f"SQLite {apsw.sqlite_lib_version()} is too old, need 3.51.3")
        try:
            if not self.path.exists():
                self._create()
            self._db = self._connect()
            return self._recover()
        except apsw.Error as error:
            raise StoreError(f"{self.path}: {error}") from None

    def _create(self) -> None:
        """Bring the database into the world under another name, whole or not at all."""
        newborn = self.path.with_suffix(".new")
        newborn.unlink(missing_ok=True)
        db = apsw.Connection(str(newborn))
        db.execute(f"pragma page_size={PAGE_BYTES}; pragma synchronous=extra")
        db.execute("pragma journal_mode=wal")
        db.execute("begin immediate")
        db.execute(Path(__file__).with_name("schema.sql").read_text(encoding="utf-8"))
        db.execute(
            "insert into meta values ('bus', ?), ('epoch', 0), ('indexed_n', 0), ('open_from', 1)",
            (uuid.uuid4().hex[:12],),
        )
        db.execute(f"pragma user_version={SCHEMA_VERSION}; commit")
        db.execute("pragma wal_checkpoint(truncate)")
        db.close()
        newborn.rename(self.path)
        _sync_folder(self.path.parent)

    def _connect(self) -> apsw.Connection:
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        db.execute("pragma locking_mode=exclusive")
        db.execute("pragma journal_mode=wal; pragma synchronous=full")
        db.execute(f"pragma wal_autocheckpoint={CHECKPOINT_PAGES}")
        db.execute("pragma cache_size=-32768; pragma temp_store=memory")
        return db

    def _recover(self) -> Opened:
        db = self._db
        version = self._one("pragma user_version")
        if version != SCHEMA_VERSION:
            raise StoreError(f"{self.path}: version {version}, this router needs {SCHEMA_VERSION}")
        check = self._one("pragma quick_check(1)") if self._is_small() else "ok"
        if check != "ok":
            raise StoreError(f"{self.path}: damaged ({check})")
        db.execute("pragma wal_checkpoint(truncate)")
        db.execute("update meta set value = value + 1 where key = 'epoch'")
        meta = dict(self._rows("select key, value from meta"))
        totals: dict[str, dict[str, int]] = {}
        for destination, state, count in self._rows("select destination, state, count from total"):
            totals.setdefault(destination, {})[state] = count
        next_n = self._one("select coalesce(max(n), 0) + 1 from message")
        next_delivery = self._one("select coalesce(max(delivery), 0) + 1 from delivery")
        self._indexed_n = int(meta["indexed_n"])
        self._open_from = int(meta["open_from"])
        # Numbers are never given twice, even when the newest messages have been pruned.
        next_n = max(next_n, self._indexed_n + 1)
        next_delivery = max(next_delivery, self._open_from)
        return Opened(meta["bus"], int(meta["epoch"]), next_n, next_delivery, totals)

    def _is_small(self) -> bool:
        """Whether the whole file can be checked without delaying the start."""
        return self.path.stat().st_size < QUICK_CHECK_BYTES_MAX

    def load_open(self) -> Iterator[OpenDelivery]:
        """See Store.load_open."""
        rows = self._rows(
            "select d.delivery, d.n, d.destination, d.due, d.attempts, m.subject, m.priority,"
            " m.accepted_at, m.raw, m.checksum"
            " from delivery d left join message m on m.n = d.n"
            " where d.delivery >= ? and d.state is null order by d.delivery",
            (self._open_from,),
        )
        for *row, checksum in rows:
            if checksum is None or crc32(row[8]) != checksum:
                raise StoreError(f"{self.path}: message {row[1]} is damaged (checksum)")
            yield OpenDelivery(*row)

    # -- writing ----------------------------------------------------------------------------------

    def write(self, batch: Batch) -> dict[int, int]:
        """See Store.write."""
        db = self._db
        db.execute("begin immediate")
        duplicates: dict[int, int] = {}
        for part in _chunks(batch.messages):
            db.execute(_insert_messages(len(part)), tuple(chain.from_iterable(part)))
            if db.changes() < len(part):
                duplicates |= self._find_duplicates(part)
        deliveries = batch.deliveries
        if duplicates:
            deliveries = [row for row in deliveries if row[1] not in duplicates]
        for rows in _chunks(deliveries):
            db.execute(_insert_deliveries(len(rows)), tuple(chain.from_iterable(rows)))
        self._write_ends(batch)
        self._count(deliveries, batch)
        db.execute("commit")
        return duplicates

    def _write_ends(self, batch: Batch) -> None:
        db = self._db
        for attempt in batch.attempts:
            db.execute("insert or replace into attempt values (?, ?, ?, ?, ?, ?)", attempt)
            delivery, number, _, _, _, due = attempt
            update = "update delivery set attempts = ?, due = ? where delivery = ?"
            db.execute(update, (number, due, delivery))
        for rows in _chunks(batch.outcomes):
            db.execute(_replace_deliveries(len(rows)), tuple(chain.from_iterable(rows)))

    def _find_duplicates(self, rows: Sequence[tuple[Any, ...]]) -> dict[int, int]:
        found: dict[int, int] = {}
        for n, source, id, *_ in rows:
            stored = self._one("select n from message where source = ? and id = ?", (source, id))
            if stored != n:
                found[n] = stored
        return found

    def _count(self, deliveries: Sequence[tuple[Any, ...]], batch: Batch) -> None:
        counts: dict[tuple[str, str], int] = {}
        for row in deliveries:
            key = (row[2], "accepted")
            counts[key] = counts.get(key, 0) + 1
        for outcome in batch.outcomes:
            key = (outcome[2], STATE_WORDS[State(outcome[3])])
            counts[key] = counts.get(key, 0) + 1
        upsert = (
            "insert into total values (?, ?, ?)"
            " on conflict (destination, state) do update set count = count + excluded.count"
        )
        for (destination, state), count in counts.items():
            self._db.execute(upsert, (destination, state, count))

    # -- history ----------------------------------------------------------------------------------

    def trace(self, subject: str, limit: int) -> list[dict[str, object]]:
        """See Store.trace."""
        columns = ("n", "id", "type", "source", "subject", "priority", "accepted_at",
                   "first_delivery", "deliveries", "raw")  # fmt: skip
        chosen = ", ".join(columns)
        rows = self._rows(
            f"select {chosen} from message where n in"
            " (select n from subject_message where subject = ?1)"
            f" union all select {chosen} from message where n > ?2 and subject = ?1"
            " order by n limit ?3",
            (subject, self._indexed_n, limit),
        )
        messages = [dict(zip(columns, row, strict=True)) for row in rows]
        for message in messages:
            first = message.pop("first_delivery")
            message["deliveries"] = self._ends(first, first + message["deliveries"] - 1)
        return messages

    def _ends(self, first: int, last: int) -> list[dict[str, object]]:
        columns = ("delivery", "destination", "state", "attempts", "delivered_at", "ended_at",
                   "note", "due")  # fmt: skip
        rows = self._rows(
            f"select {', '.join(columns)} from delivery where delivery between ? and ?",
            (first, last),
        )
        deliveries = [dict(zip(columns, row, strict=True)) for row in rows]
        for delivery in deliveries:
            attempts = self._rows(
                "select at, outcome, note from attempt where delivery = ? order by at",
                (delivery["delivery"],),
            )
            keys = ("at", "outcome", "note")
            delivery["history"] = [dict(zip(keys, row, strict=True)) for row in attempts]
        return deliveries

    def tidy(self, open_from: int, limit: int) -> int:
        """See Store.tidy."""
        db = self._db
        last: int = self._one("select coalesce(max(n), 0) from message")
        if last <= self._indexed_n and open_from == self._open_from:
            return 0
        upto = min(last, self._indexed_n + limit)
        db.execute("begin immediate")
        db.execute(
            "insert or ignore into subject_message select subject, n from message"
            " where n > ? and n <= ? and subject <> '' order by subject, n",
            (self._indexed_n, upto),
        )
        db.execute("update meta set value = ? where key = 'indexed_n'", (upto,))
        db.execute("update meta set value = ? where key = 'open_from'", (open_from,))
        db.execute("commit")
        self._indexed_n, self._open_from = upto, open_from
        return last - upto

    def prune(self, before_ms: int, limit: int) -> int:
        """See Store.prune. Dead letters stay: they may be replayed."""
        db = self._db
        rows = list(
            self._rows(
                "select n, first_delivery, first_delivery + deliveries - 1 from message"
                " where n > ? and n <= ? and accepted_at < ? order by n limit ?",
                (self._pruned_n, self._indexed_n, before_ms, limit),
            )
        )
        db.execute("begin immediate")
        for n, first, last in rows:
            self._pruned_n = n
            kept = self._one(
                "select exists (select 1 from delivery where delivery between ? and ?"
                " and (state is null or state = ?))",
                (first, last, int(State.DEAD)),
            )
            if not kept:
                db.execute(
                    "delete from subject_message where n = ?1 and"
                    " subject = (select subject from message where n = ?1)",
                    (n,),
                )
                db.execute("delete from message where n = ?", (n,))
                db.execute("delete from delivery where delivery between ? and ?", (first, last))
                db.execute("delete from attempt where delivery between ? and ?", (first, last))
        db.execute("commit")
        return len(rows)

    def size_bytes(self) -> int:
        """See Store.size_bytes."""
        return sum(
            file.stat().st_size for file in self.path.parent.glob(f"{FILE}*") if file.is_file()
        )

    def close(self) -> None:
        """See Store.close."""
        self._db.close()

    def _rows(self, sql: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        return iter(self._db.execute(sql, values))

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        return next(self._rows(sql, values))[0]


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into the few sizes whose statements stay prepared."""
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@cache
def _insert_messages(count: int) -> str:
    values = _values(count, 11)
    return f"insert into message values {values} on conflict (source, id) do nothing"


@cache
def _insert_deliveries(count: int) -> str:
    return f"insert into delivery (delivery, n, destination, due) values {_values(count, 4)}"


@cache
def _replace_deliveries(count: int) -> str:
    # Overwrites the row in place, which an UPDATE ... FROM (VALUES ...) does at twice the price.
    columns = "(delivery, n, destination, state, attempts, delivered_at, ended_at, note)"
    return f"replace into delivery {columns} values {_values(count, 8)}"


def _values(rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
