"""The embedded store: SQLite with a write-ahead log, synced at every commit.

Why it is opened the way it is (docs/decisions has the measurements):
- The database is created under synchronous=EXTRA, closed, its folder synced, and only then used in
  WAL mode with synchronous=FULL: otherwise a loss of power may bring its first rollback journal
  back.
- Every start truncates the log into the database and commits a new epoch before anything is
  accepted: after a failed sync the page cache may show data that the disk does not have.
- One connection with locking_mode=EXCLUSIVE, used by one thread.
- An error while writing is not survived: the caller ends the process.

Rows are inserted by statements of 512 down to 1 rows: the interpreter lock is given up once per
statement instead of once per row, which matters more here than anything else.
"""

import errno
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar
from zlib import crc32

import apsw

from router.core.delivery import State
from router.core.output import Batch
from router.store.contract import Opened, StoreError
from router.store.history import DEAD, HEAD, NONE, SEGMENT, SEGMENT_OF
from router.store.pagecache import PageCache
from router.store.persons import SECURE_FAST
from router.store.reader import Reader, count_of

FILE: Final = "journal.db"
SCHEMA_VERSION: Final = 3
SQLITE_VERSION_MIN: Final = 3_051_003  # older ones can corrupt a WAL database when it is reset
PAGE_BYTES: Final = 8192
COPY_BYTES: Final = 1024 * 1024
CHECKPOINT_PAGES: Final = 1024
CHECKPOINT_PAGES_MAX: Final = 8192
LARGE_COMMIT_PAGES: Final = 32
QUICK_CHECK_BYTES_MAX: Final = 64 * 1024 * 1024
Row = TypeVar("Row")
CHUNKS: Final = (512, 128, 32, 8, 1)
GENERATION_BYTES: Final = 6
# What makes a journal of a version one of the next. Nothing is copied: it may be large.
UPGRADES: Final = {
    2: "create table generation (first_delivery integer primary key, word text not null);"
    " alter table attempt add column seq integer; alter table attempt add column age integer",
}
# The same attempt in the same millisecond is one: what was said of it last counts.
TRY: Final = (
    "insert into attempt(delivery,attempt,at,outcome,note,due,age,seq) values(?,?,?,?,?,?,?,"
    "(select coalesce(max(seq),0)+1 from attempt where delivery=?))"
    " on conflict do update set outcome=excluded.outcome,note=excluded.note,due=excluded.due,"
    "age=excluded.age,seq=excluded.seq"
)
ON_REPEAT: Final = " on conflict(source,id) do nothing"
# In one step, which writes as much, since it is overwritten: an emergency may wait for it.
PRUNE_BYTES_MAX: Final = 1024 * 1024
FRONTIER_STEP: Final = 10_000
STATE_WORDS: Final = {State.SETTLED: "settled", State.DEAD: "dead", State.EXPIRED: "expired"}


class SqliteStore(Reader):
    """`router.store.contract.Store` in one file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._log = folder / f"{FILE}-wal"
        self._cache = PageCache(self.path)
        self._log_pages = 0  # after the last commit
        self._fresh_pages = 0  # of them since the last checkpoint, those of large commits
        self._pruned_n = 0
        self._again_n = 0
        self._place = (0, 0)  # device and inode
        self._indexed_n = 0
        self._frontier = 1

    # -- opening ----------------------------------------------------------------------------------

    def open(self, epoch_min: int = 0, generation: str = "") -> Opened:
        """See Store.open."""
        if apsw.SQLITE_VERSION_NUMBER < SQLITE_VERSION_MIN:
            raise StoreError(f"SQLite {apsw.sqlite_lib_version()} is too old, need 3.51.3")
        try:
            if not self.path.exists():
                if self._log.exists():  # SQLite would replay it into a newborn database
                    raise StoreError(f"{self.path} is missing, but its log {self._log.name} is not")
                self._create()
            self._settle_log()
            self._db = self._connect()
            found = self.path.stat()
            self._place = found.st_dev, found.st_ino
            return self._recover(epoch_min, generation)
        except (apsw.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}") from None

    def _create(self) -> None:
        """Bring the database into the world under another name, whole or not at all."""
        newborn = self.path.with_suffix(".new")
        newborn.unlink(missing_ok=True)
        db = apsw.Connection(str(newborn))
        db.execute("pragma locking_mode=exclusive")  # no shared memory file at birth either
        db.execute(f"pragma page_size={PAGE_BYTES}; pragma synchronous=extra")
        _use_log(db)
        db.execute("begin immediate")
        db.execute(Path(__file__).with_name("schema.sql").read_text(encoding="utf-8"))
        db.execute(
            "insert into meta values ('bus', ?), ('epoch', 0), ('indexed_n', 0), ('frontier', 1)",
            (uuid.uuid4().hex[:12],),
        )
        db.execute(f"pragma user_version={SCHEMA_VERSION}; commit")
        db.execute("pragma wal_checkpoint(truncate)")
        db.close()
        newborn.rename(self.path)
        _sync_folder(self.path.parent)

    def _settle_log(self) -> None:
        """Make what the kernel shows of a log that was left what the disk has.

        After a failed sync it may show more. SQLite would copy that into the database, and power
        lost meanwhile would leave half of a transaction whose log is gone (tests/crash).
        """
        copy = self.path.with_name(f"{FILE}-copy")
        copy.unlink(missing_ok=True)
        if not self._log.exists():
            return
        try:
            _write_again(self._log, copy)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # Not a byte is free. Over itself it needs none: each of its frames vouches for itself
            # and all before it, so whatever power leaves of this reads as before or as after.
            copy.unlink(missing_ok=True)
            _write_again(self._log, self._log)
            return
        copy.rename(self._log)
        _sync_folder(self.path.parent)

    def _connect(self) -> apsw.Connection:
        # It is used by one thread: its own mutex, taken for every value of a row, guards nothing.
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOMUTEX
        db = apsw.Connection(str(self.path), flags=flags)
        db.execute("pragma locking_mode=exclusive")
        _use_log(db)
        db.execute("pragma synchronous=full")
        db.execute(f"pragma journal_size_limit={CHECKPOINT_PAGES_MAX * PAGE_BYTES}")
        db.set_wal_hook(self._checkpoint)
        db.execute(SECURE_FAST)
        db.execute("pragma cache_size=-32768; pragma temp_store=memory")
        db.create_scalar_function("numbers_of", self._numbers_of, 3)
        return db

    def _recover(self, epoch_min: int, generation: str) -> Opened:
        db = self._db
        version = self._one("pragma user_version")
        if version not in (SCHEMA_VERSION, *UPGRADES):
            raise StoreError(f"{self.path}: version {version}, this router needs {SCHEMA_VERSION}")
        check = self._one("pragma quick_check(1)") if self._is_small() else "ok"
        if check != "ok":
            raise StoreError(f"{self.path}: damaged ({check})")
        db.execute("pragma wal_checkpoint(truncate)")
        next_n, next_delivery = self._begin_life(version, epoch_min, generation)
        meta = dict(self._rows("select key, value from meta"))
        totals: dict[str, dict[str, int]] = {}
        for destination, state, count in self._rows("select destination, state, count from total"):
            totals.setdefault(destination, {})[state] = count
        self._indexed_n = int(meta["indexed_n"])
        self._frontier = int(meta["frontier"])
        generations = tuple(self._rows("select first_delivery, word from generation order by 1"))
        holds = dict(self._rows("select destination, reason from hold"))
        newest = "select coalesce((select accepted_at from message order by n desc limit 1), 0)"
        return Opened(
            meta["bus"], int(meta["epoch"]), next_n, next_delivery, totals, holds, generations,
            self._one(newest),
        )  # fmt: skip

    def _begin_life(self, version: int, epoch_min: int, word: str) -> tuple[int, int]:
        """Make the journal one of this version, with a new epoch and a new generation. Return the
        numbers of the next message and delivery."""
        db = self._db
        db.execute("begin immediate")
        while version in UPGRADES:
            version += 1
            db.execute(UPGRADES[version - 1] + f"; pragma user_version={version}")
        db.execute("update meta set value = max(value + 1, ?) where key = 'epoch'", (epoch_min,))
        # Repeats take numbers that no row keeps: the frontier may be above the last message.
        next_n, next_delivery = int(self._one("select value from meta where key = 'frontier'")), 1
        newest = "select n, first_delivery, destinations from message order by n desc limit 1"
        for n, first, destinations in self._rows(newest):
            next_n, next_delivery = max(n + 1, next_n), first + count_of(destinations)
        # The words of what has left the history are forgotten, and one that numbered nothing.
        db.execute(
            "delete from generation where first_delivery < (select max(first_delivery)"
            " from generation where first_delivery <="
            " (select first_delivery from message order by n limit 1))"
        )
        db.execute(
            "insert or replace into generation values (?, ?)",
            (next_delivery, word or os.urandom(GENERATION_BYTES).hex()),
        )
        db.execute("commit")
        return next_n, next_delivery

    def _is_small(self) -> bool:
        """Whether the whole file can be checked without delaying the start."""
        return self.path.stat().st_size < QUICK_CHECK_BYTES_MAX

    # -- writing ----------------------------------------------------------------------------------

    def write(self, batch: Batch) -> dict[int, int]:
        """See Store.write."""
        db = self._db
        db.execute("begin immediate")
        duplicates: dict[int, int] = {}
        for part in _chunks(batch.messages):
            db.execute(_insert("message", 9, len(part), ON_REPEAT), _flat(part))
            if db.changes() < len(part):
                duplicates |= self._find_duplicates(part)
        for ends in _chunks(batch.outcomes):
            db.execute(_insert("outcome", 8, len(ends)), _flat(ends))
        for attempt in batch.attempts:
            db.execute(TRY, (*attempt, attempt[0]))
        self._obey(batch)
        self._file(batch, duplicates)
        self._count(batch, duplicates)
        db.execute("commit")
        return duplicates

    def _obey(self, batch: Batch) -> None:
        """Carry out what an operator wants."""
        db = self._db
        for delivery, _ in batch.reopened:
            db.execute("delete from outcome where delivery = ?", (delivery,))
        for delivery, _, reason in batch.dropped:
            db.execute(
                "update outcome set state = ?, note = coalesce(note || '; ', '') || ?"
                " where delivery = ?",
                (int(State.DROPPED), reason, delivery),
            )
        for destination, why in batch.holds.items():
            if why is None:
                db.execute("delete from hold where destination = ?", (destination,))
            else:
                db.execute("insert or replace into hold values (?, ?)", (destination, why))

    def _file(self, batch: Batch, duplicates: dict[int, int]) -> None:
        """Keep the backlog, and the frontier when it matters that a start knows it."""
        db = self._db
        spilled = batch.spilled
        if duplicates:
            spilled = [row for row in spilled if row[3] not in duplicates]
        for filed in (batch.filed, spilled):
            for rows in _chunks(filed):
                db.execute(_insert("backlog", 5, len(rows)), _flat(rows))
        lanes: dict[tuple[str, int], list[int]] = {}
        for destination, lane, delivery, *_ in batch.unfiled:
            lanes.setdefault((destination, lane), []).append(delivery)
        for place, deliveries in lanes.items():
            for part in _chunks(deliveries):
                db.execute(_unfile(len(part)), (*place, *part))
        if batch.filed or batch.frontier >= self._frontier + FRONTIER_STEP:
            db.execute("update meta set value = ? where key = 'frontier'", (batch.frontier,))
            self._frontier = batch.frontier

    def _find_duplicates(self, rows: Sequence[tuple[Any, ...]]) -> dict[int, int]:
        found: dict[int, int] = {}
        for n, source, id, *_ in rows:
            stored = self._one("select n from message where source = ? and id = ?", (source, id))
            if stored != n:
                found[n] = stored
        return found

    def _count(self, batch: Batch, duplicates: dict[int, int]) -> None:
        messages = batch.messages
        if duplicates:
            messages = [row for row in messages if row[0] not in duplicates]
        accepted = Counter(map(itemgetter(6), messages))
        counts: Counter[tuple[str, str]] = Counter()
        for names, count in accepted.items():
            counts.update({(name, "accepted"): count for name in names.split(" ")})
        ended = Counter(map(itemgetter(2, 3), batch.outcomes))
        for (name, state), count in ended.items():
            counts[name, STATE_WORDS[State(state)]] += count
        for _, name in batch.reopened:
            counts[name, "dead"] -= 1
        for _, name, _ in batch.dropped:
            counts[name, "dead"] -= 1
            counts[name, "dropped"] += 1
        upsert = (
            "insert into total values (?, ?, ?)"
            " on conflict (destination, state) do update set count = count + excluded.count"
        )
        for (name, word), count in counts.items():
            self._db.execute(upsert, (name, word, count))

    # -- history ----------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """See Store.verify."""
        wrong = [f"SQLite: {row[0]}" for row in self._rows("pragma integrity_check(10)")]
        wrong = [] if wrong == ["SQLite: ok"] else wrong
        for n, checksum, raw in self._rows("select n, checksum, raw from message order by n"):
            if crc32(raw) != checksum:
                wrong.append(f"message {n} is damaged (checksum)")
        twice = self._one("select count(*) from backlog join outcome using (delivery)")
        if twice:
            wrong.append(f"{twice} deliveries are both open and ended")
        return [*wrong, *self._find_imbalance()]

    def _find_imbalance(self) -> list[str]:
        """accepted = settled + dead + dropped + expired + open, at every destination."""
        left: Counter[str] = Counter()
        signs = {"accepted": 1}
        for name, word, count in self._rows("select destination, state, count from total"):
            left[name] += signs.get(word, -1) * count
        for _, destination in self._open_deliveries():
            left[destination] -= 1
        (accepted_behind, ended_behind, filed_behind) = next(
            self._rows(
                "select (select coalesce(sum(1 + length(destinations)"
                " - length(replace(destinations, ' ', ''))), 0) from message where n < ?1),"
                " (select count(*) from outcome where n < ?1),"
                " (select count(*) from backlog where n < ?1)",
                (self._frontier,),
            )
        )
        wrong = [f"{name}: {count} deliveries too many" for name, count in left.items() if count]
        hidden = accepted_behind - ended_behind - filed_behind
        if hidden:
            wrong.append(f"{hidden} open deliveries are hidden behind the frontier")
        return wrong

    def tidy(self) -> int:
        """See Store.tidy. A step is one segment, written in the order of its subjects."""
        db = self._db
        last: int = self._one("select coalesce(max(n), 0) from message")
        upto = self._indexed_n + SEGMENT
        if last < upto:
            return 0
        db.execute("begin immediate")
        db.execute(
            "insert into subject_message"
            f" select {SEGMENT_OF.format('n')}, subject, n from message"
            " where n > ?1 and n <= ?2 and subject <> ''"
            f" union select {SEGMENT_OF.format('n')}, value, n"
            f" from message, json_each(numbers_of(n, {HEAD})) where n > ?1 and n <= ?2"
            " order by 2, 3",
            (self._indexed_n, upto),
        )
        db.execute("update meta set value = ? where key = 'indexed_n'", (upto,))
        db.execute("commit")
        self._indexed_n = upto
        return (last - upto) // SEGMENT

    def prune(self, before_ms: int, limit: int, passed: bool = False) -> int:
        """See Store.prune. Dead letters stay: they may be replayed."""
        after, upto = (self._again_n, self._pruned_n) if passed else (self._pruned_n, NONE)
        # The newest message stays, so that no number is given twice.
        rows: list[Any] = self._db.execute(
            "select n, subject, first_delivery, destinations, accepted_at, length(raw)"
            " from message where n > ? and n <= ? and n < (select max(n) from message)"
            " order by n limit ?",
            (after, upto, limit),
        ).fetchall()
        if not passed:  # up to the last that is old: the clock may have been ahead for a while
            while rows and rows[-1][4] >= before_ms:
                rows.pop()
        looked_at, size = 0, 0
        # What is forgotten is overwritten. Only here: what comes and goes under load has no body.
        self._db.execute("pragma secure_delete=on")
        self._db.execute("begin immediate")
        for n, subject, first, destinations, accepted_at, length in rows:
            looked_at, after = looked_at + 1, n
            last = first + count_of(destinations) - 1
            if accepted_at < before_ms and self._is_over(first, last, before_ms):
                self._forget(n, subject, first, last)
                size += length
                if size >= PRUNE_BYTES_MAX:
                    break
        self._db.execute("commit")
        self._db.execute(SECURE_FAST)
        if passed:
            self._again_n = after if looked_at else 0
        else:
            self._pruned_n = after
        return looked_at

    def _is_over(self, first: int, last: int, before_ms: int) -> bool:
        """Whether these deliveries ended before a time, and none of them is dead."""
        ended, dead, newest = next(
            self._rows(
                f"select count(*), total(state = {DEAD}), max(ended_at) from outcome"
                " where delivery between ? and ?",
                (first, last),
            )
        )
        return bool(ended == last - first + 1 and not dead and newest < before_ms)

    def _forget(self, n: int, subject: str, first: int, last: int) -> None:
        db = self._db
        db.execute(
            f"delete from subject_message where segment = {SEGMENT_OF.format('?1')}"
            " and subject in (select ?2 union select value"
            f" from message, json_each(numbers_of(n, {HEAD})) where message.n = ?1) and n = ?1",
            (n, subject),
        )
        db.execute("delete from message where n = ?", (n,))
        db.execute("delete from outcome where delivery between ? and ?", (first, last))
        db.execute("delete from attempt where delivery between ? and ?", (first, last))

    def note(self, key: str, value: str) -> None:
        """See Store.note."""
        self._db.execute("insert or replace into meta values (?, ?)", (f"note {key}", value))

    def noted(self, key: str) -> str:
        """See Store.noted."""
        found = next(self._rows("select value from meta where key = ?", (f"note {key}",)), ("",))
        return str(found[0])

    def size_bytes(self) -> int:
        """See Store.size_bytes."""
        return sum(
            file.stat().st_size for file in self.path.parent.glob(f"{FILE}*") if file.is_file()
        )

    def empty_bytes(self) -> int:
        """See Store.empty_bytes."""
        return int(self._one("pragma freelist_count")) * PAGE_BYTES

    def is_in_place(self) -> bool:
        """See Store.is_in_place."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._place

    def rescue(self) -> str:
        """See Store.rescue. SQLite reads on in the file that has lost its name."""
        copy = self.path.with_suffix(".rescued")
        copy.unlink(missing_ok=True)
        self._db.execute("vacuum into ?", (str(copy),))
        descriptor = os.open(copy, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if self.path.exists():
            return str(copy)
        self._log.unlink(missing_ok=True)  # all that was in it is in the copy
        copy.rename(self.path)
        _sync_folder(self.path.parent)
        return str(self.path)

    def close(self) -> None:
        """See Store.close."""
        self._db.close()
        self._cache.close()

    def _checkpoint(self, db: apsw.Connection, name: str, pages: int) -> int:
        # SQLite's own automatic checkpoint keeps its errors to itself. Small commits write the same
        # pages again and again: the longer one waits, the less there is to copy. Large ones write
        # pages of their own: the longer one waits, the longer the next commit stands.
        own = pages - self._log_pages if pages > self._log_pages else pages
        self._log_pages = pages
        if own >= LARGE_COMMIT_PAGES:
            self._fresh_pages += own
        if pages >= CHECKPOINT_PAGES_MAX or self._fresh_pages >= CHECKPOINT_PAGES:
            db.wal_checkpoint(name, apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._cache.trim()
            self._fresh_pages = 0
        return apsw.SQLITE_OK


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into the few sizes whose statements stay prepared."""
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@cache
def _insert(table: str, columns: int, rows: int, ending: str = "") -> str:
    # No blanks: apsw keeps statements prepared up to 16 KiB of text, and parsing is dear.
    row = f"({','.join('?' * columns)})"
    return f"insert into {table} values{','.join([row] * rows)}{ending}"


@cache
def _unfile(rows: int) -> str:
    among = ",".join("?" * rows)
    return f"delete from backlog where destination=? and lane=? and delivery in({among})"


def _flat(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(rows))


def _use_log(db: apsw.Connection) -> None:
    # When it cannot, SQLite says so in its answer only, and goes on without a log.
    if (mode := db.pragma("journal_mode", "wal")) != "wal":
        raise StoreError(f"SQLite keeps its journal in mode {mode}, not wal")


def _write_again(source: Path, target: Path) -> None:
    """Write a log to another file, or over itself, and sync that."""
    mode = os.O_WRONLY | (0 if target == source else os.O_CREAT | os.O_EXCL)
    reading = os.open(source, os.O_RDONLY)
    try:
        writing = os.open(target, mode, 0o600)
        try:
            offset = 0
            while piece := os.pread(reading, COPY_BYTES, offset):
                offset += os.pwrite(writing, piece, offset)
            os.fsync(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
