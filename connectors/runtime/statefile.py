"""A connector's own SQLite file, which may be full, read-only, locked or broken at any time.

What a connector does must not rest on it where the bus can do without: `Spared` goes on in memory
and writes down later what it could not. Where it is needed, `StateFile` raises `StateAway`: come
back later. Either way one line tells of it, one of its end, and the reports in between.
"""

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import apsw

from connectors.runtime.log import LOG
from connectors.runtime.ownfile import refuse_link
from proto import clock
from proto.client import Retry
from proto.note import coded
from proto.wording import text

AGAIN_S: Final = 1.0  # between two attempts at a file that cannot be written
AFTER_S: Final = 5.0  # then who was sent away may come back
PENDING_MAX: Final = 20_000  # notes that wait to be written down
SPARE_PAGES: Final = 8192  # 32 MiB of what is noted while the file is away
# What is deleted is overwritten, not only forgotten: it may have been a patient's document.
SECURE: Final = "pragma secure_delete = on"
FLUSH: Final = 500  # of them at a time: nobody waits for long
# What passes, or is mended while we run. Anything else is a wrong setting.
PASSING: Final = (
    apsw.FullError, apsw.IOError, apsw.BusyError, apsw.LockedError, apsw.ReadOnlyError,
    apsw.CorruptError,
)  # fmt: skip

Statement = tuple[str, tuple[Any, ...]]


class StateAway(Retry):
    """The connector's own file cannot be used now; a later attempt may find it well."""

    def __init__(self) -> None:
        super().__init__(coded("connector.state_away"), AFTER_S)
        self.wait_s = AFTER_S


class Alarm:
    """Tells once that a file cannot be used, and once that it can again."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.reason = ""  # why it cannot be used, "" when it can
        self._away_since = 0.0

    def look(self) -> None:
        """Look whether the file is well again, if it was not."""

    def failed(self, error: Exception) -> None:
        """It cannot be used."""
        if not self.reason:
            self._away_since = clock.monotonic()
            LOG.error(text("state.away", file=self.file, reason=error))
        self.reason = str(error) or type(error).__name__

    def well(self) -> None:
        """It was used."""
        if self.reason:
            seconds = round(clock.monotonic() - self._away_since)
            LOG.info(text("state.back", file=self.file, seconds=seconds))
            self.reason = ""


class StateFile(Alarm):
    """The connection, as apsw has it, with StateAway in place of every error."""

    def __init__(
        self,
        file: Path,
        schema: str,
        *,
        pragmas: str = "pragma journal_mode = wal; pragma synchronous = full",
        busy_ms: int = 0,
    ) -> None:
        """The file is its owner's alone. Raises apsw.Error or OSError for one that cannot be."""
        super().__init__(file)
        self._path = file
        self._schema = schema
        self._pragmas = pragmas
        self._busy_ms = busy_ms
        self._db: apsw.Connection | None = None
        try:
            self._open()
        except (*PASSING, apsw.CantOpenError, OSError) as error:
            if not isinstance(error, PASSING) and not _may_pass(file):
                raise
            self.failed(error)

    def look(self) -> None:
        """Look whether the file is well again, if it was not."""
        if self.reason:
            with contextlib.suppress(StateAway), self:
                self.execute("pragma user_version = 0")

    def execute(self, statement: str, values: Any = ()) -> apsw.Cursor:
        """Execute. Raises StateAway."""
        with self._watching() as db:
            found = db.execute(statement, values)
        if not statement.startswith("select"):  # that it can be read proves little
            self.well()
        return found

    def executemany(self, statement: str, values: Iterable[Any]) -> apsw.Cursor:
        """Execute for each of `values`. Raises StateAway."""
        with self._watching() as db:
            return db.executemany(statement, values)

    def __enter__(self) -> Self:
        """Begin a transaction. Raises StateAway."""
        with self._watching() as db:
            db.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        """End it. Raises StateAway."""
        with self._watching() as db:
            db.__exit__(*raised)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[apsw.Connection]:
        try:
            yield self._db or self._open()
        except (apsw.Error, OSError) as error:
            self.failed(error)
            raise StateAway from None

    def _open(self) -> apsw.Connection:
        refuse_link(self._path)
        self._path.touch(mode=0o600, exist_ok=True)
        _close_to_others(self._path)
        db = apsw.Connection(str(self._path))
        try:
            db.set_busy_timeout(self._busy_ms)
            db.execute(f"{self._pragmas}; {SECURE}").fetchall()
            db.execute(self._schema).fetchall()
        except apsw.Error:
            db.close()
            raise
        self._db = db
        return db


class Spared(Alarm):
    """A file that its connector can do without for a while: what cannot be noted in it is kept in
    memory, within bounds, and noted later. Only `keep` needs it."""

    def __init__(
        self,
        file: Path | None,
        schema: Callable[[], str],
        *,
        pragmas: str = "pragma journal_mode = wal; pragma synchronous = full",
    ) -> None:
        """`file` None keeps everything in memory; `schema` returns what makes the tables where they
        are not there yet. Raises apsw.Error for a file that cannot be."""
        super().__init__(file)
        self._schema = schema
        self._pragmas = pragmas
        self._pending: deque[Statement] = deque(maxlen=PENDING_MAX)
        self._spare: apsw.Connection | None = None
        self._file: apsw.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._again_at = 0.0
        try:
            self._open()
        except (*PASSING, apsw.CantOpenError) as error:
            if not isinstance(error, PASSING) and not _may_pass(file):
                raise
            self.failed(error)

    def write(self, *statements: Statement, synced: bool = True) -> None:
        """Note all of `statements` or none; on the disk when this returns if they are `synced`, and
        the file is well."""
        self._pending.extend(statements)
        if self._is_due():
            try:
                self._flush(synced)
            except apsw.Error as error:
                self.failed(error)
        if self._pending and statements:
            self._note_in_memory(statements)

    def keep(self, *statements: Statement) -> None:
        """Note `statements` on the disk, or raise StateAway and note none of them."""
        if self._is_due():
            self.look()
            if not self.reason:
                self._pending.extend(statements)
                try:
                    self._flush(synced=True)
                except apsw.Error as error:
                    self._pending.clear()  # there were no others
                    self.failed(error)
                else:
                    return
        raise StateAway

    def look(self) -> None:
        """Try again what could not be written down, if it is time."""
        if self.reason:
            self.write()

    def rows(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what the file has, and after it what was noted in memory since it is away."""
        found: list[tuple[Any, ...]] = []
        for source in (self._file, self._spare):
            if source is not None:
                try:
                    found += source.execute(question, values).fetchall()
                except apsw.Error as error:
                    if source is self._file:
                        self.failed(error)
        return found

    def close(self) -> None:
        """Write down what is still to be, if that goes, and close the file."""
        self._again_at = 0.0
        self.look()
        for one in (self._file, self._spare):
            if one is not None:
                one.close()

    # -- within ---------------------------------------------------------------------------------

    def _open(self) -> None:
        if self.file is not None:
            _refuse_link(self.file)
            with contextlib.suppress(OSError):  # SQLite will say why
                self.file.touch(mode=0o600, exist_ok=True)
            _close_to_others(self.file)
        db = apsw.Connection(":memory:" if self.file is None else str(self.file))
        try:
            db.execute(f"{self._pragmas}; {SECURE}").fetchall()
            db.execute(self._schema()).fetchall()
        except apsw.Error:
            db.close()
            raise
        self._file = db
        self._identity = _identity(self.file)

    def _is_due(self) -> bool:
        if self.file is not None and _identity(self.file) != self._identity and self._file:
            # Somebody moved it away: what we wrote to it would be gone with it.
            self._file.close()
            self._file = None
            LOG.warning(text("state.gone", file=self.file))
        return not self.reason or clock.monotonic() >= self._again_at

    def _flush(self, synced: bool) -> None:
        if self._file is None:
            self._open()
        db = self._file
        if db is None:
            return
        first = list(islice(self._pending, FLUSH))
        db.execute(f"pragma synchronous = {'full' if synced else 'normal'}")
        with db:
            for statement, values in first:
                db.execute(statement, values)
            if self.reason and not first:  # nothing to note: can it be written at all?
                db.execute("pragma user_version = 0")
        for _ in first:
            self._pending.popleft()
        if self.reason and not self._pending:
            self.well()
            if self._spare is not None:
                self._spare.close()
                self._spare = None

    def failed(self, error: Exception) -> None:
        """It cannot be used, and is left alone for a moment."""
        super().failed(error)
        self._again_at = clock.monotonic() + AGAIN_S

    def _note_in_memory(self, statements: Iterable[Statement]) -> None:
        for last in (False, True):
            if self._spare is None:
                self._spare = apsw.Connection(":memory:")
                self._spare.execute(f"pragma max_page_count = {SPARE_PAGES}")
                self._spare.execute(self._schema())
            try:
                with self._spare:
                    for statement, values in statements:
                        self._spare.execute(statement, values)
                return
            except apsw.Error:  # full: begin anew, once
                self._spare.close()
                self._spare = None
                if last:
                    return


def _refuse_link(file: Path) -> None:
    """As `refuse_link`, with the error of a file that cannot be opened."""
    try:
        refuse_link(file)
    except OSError as error:
        raise apsw.CantOpenError(error.strerror) from None


def _close_to_others(file: Path) -> None:
    """Leave a file, and what SQLite has beside it, to its owner: an earlier version, or whoever
    restored it, may have left it open."""
    for one in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        with contextlib.suppress(OSError):  # none, or not ours
            if one.stat().st_mode & 0o077:
                one.chmod(0o600)


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def may_pass(error: OSError) -> bool:
    """Whether an error is one of the machine's, which passes or is mended while we run."""
    return error.errno in (
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE,
    )  # fmt: skip


def _may_pass(file: Path | None) -> bool:
    """Whether a file that cannot be opened is where one may be: the disk is full or read-only, or
    there are no descriptors. A folder that is not there, or not ours, is a wrong setting."""
    if file is None or file.is_dir() or not file.parent.is_dir():
        return False
    try:
        refuse_link(file)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return may_pass(error)
    return True
