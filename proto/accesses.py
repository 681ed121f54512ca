"""The journal of accesses: who looked at whose data, in a file that only grows.

A line is JSON and ends with its seal: the SHA-256 of the seal before it and of the line without
its own. So no line can be changed, removed or inserted without rewriting all that follow. A chain
cannot show that its end was cut off: therefore the last seal is kept in a file beside it and
written to the log, which belongs to another user (docs/decisions/0020).

A folder holds the journals of one process: NAME.DAY.NUMBER.jsonl, where NUMBER is that of the first
line. The data that was looked at is never in it.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from .message import UNREADABLE, now_ms

BEGIN: Final = "0" * 64  # the seal before the first line
_SEAL: Final = b',"seal":"'
_SEALED: Final = len(_SEAL) + 64 + 2
WRITERS_MAX: Final = 9  # processes of one name
TEXT_MAX: Final = 200
IDS_MAX: Final = 100  # of one line; more of them become several lines
FILE: Final = "access.file"
PRUNED: Final = "access.pruned"
CUT: Final = "access.cut"


class Access(msgspec.Struct, frozen=True):
    """One access: `n` counts from 1, `at` is ms UTC, `by` names the process that wrote it down;
    `what`, `who`, `why` and `ids` are as `connectors.runtime.access` says."""

    what: str
    who: str
    why: str = ""
    ids: tuple[str, ...] = ()
    at: int = 0
    by: str = ""
    n: int = 0


class Head(msgspec.Struct, frozen=True):
    """The last line of a journal: its number and its seal."""

    n: int = 0
    seal: str = BEGIN


class Line(NamedTuple):
    """A line that was read: `fault` says what is wrong with it, "" if nothing is."""

    access: Access
    seal: str
    fault: str = ""


def accesses_of(what: str, who: str, why: str, ids: "tuple[str, ...] | list[str]") -> list[Access]:
    """Return the lines of one access, within bounds."""
    kept = [one[:TEXT_MAX] for one in ids]
    parts = [tuple(kept[at : at + IDS_MAX]) for at in range(0, len(kept), IDS_MAX)] or [()]
    at = now_ms()
    return [Access(what[:TEXT_MAX], who[:TEXT_MAX], why[:TEXT_MAX], part, at) for part in parts]


class AccessFiles:
    """One writer's journal in a folder: opened at the first line, closed and opened anew after an
    error. Used from one thread."""

    def __init__(self, folder: Path, name: str, days: int, file_bytes: int) -> None:
        """What is older than `days` goes, by whole files, which end with their day or size."""
        self.folder = folder
        self.name = self._named = name
        self.head = Head()
        self.was_cut = False  # since the last opening lines were missing at the end
        self._days = days
        self._file_bytes = file_bytes
        self._day = ""
        self._file = self._lock = -1
        self._size = 0

    def append(self, accesses: list[Access]) -> None:
        """Add lines and sync them. Raises OSError: then none of them counts as written."""
        try:
            if self._file < 0:
                self._open()
            day = _day_of(now_ms())
            if day != self._day or self._size >= self._file_bytes:
                self._begin(day)
            self._write(accesses)
        except OSError:
            if self._file >= 0:
                with contextlib.suppress(OSError):  # else the next opening finds what is there
                    os.ftruncate(self._file, self._size)
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_name()
        self.head = Head()
        files = files_of(self.folder, self.name)
        while files:
            self.head, length = _end_of(files[-1])
            if length:
                break
            files.pop().unlink()  # it was just begun when the power went
        told = _read_head(os.pread(self._lock, 200, 0))
        self.was_cut = told.n > self.head.n or (told.n == self.head.n and told != self.head)
        if not files:
            self.head = Head(max(self.head.n, told.n), self.head.seal)
            self._begin(_day_of(now_ms()))
        else:
            self._file = _open(files[-1], os.O_WRONLY)
            os.ftruncate(self._file, length)  # half a line was never said to be kept
            os.lseek(self._file, 0, os.SEEK_END)
            self._day, self._size = files[-1].name.split(".")[-3], length
        if self.was_cut:
            self._write([Access(CUT, self.name, "", (str(told.n), told.seal))])

    def _take_name(self) -> None:
        """Take a name of our own: of several processes of one name the second is NAME-2."""
        for number in range(1, WRITERS_MAX + 1):
            self.name = self._named if number == 1 else f"{self._named}-{number}"
            self._lock = _open(self.folder / f"{self.name}.head", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                self._lock = -1
                if number == WRITERS_MAX:
                    raise
            else:
                return

    def _begin(self, day: str) -> None:
        """Begin a file, whose first line names the seal before it, and forget the oldest."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        file = self.folder / f"{self.name}.{day}.{self.head.n + 1:012}.jsonl"
        self._file = _open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._day, self._size = day, 0
        pruned = self._prune()
        self._write([Access(FILE, self.name, "", (self.head.seal,)), *pruned])
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _prune(self) -> list[Access]:
        last = (datetime.now(UTC) - timedelta(days=self._days)).strftime("%Y%m%d")
        files = files_of(self.folder, self.name)
        old = [one for one in files[:-1] if one.name.split(".")[-3] < last]
        if not old:
            return []
        head, _ = _end_of(old[-1])
        for one in old:
            one.unlink()
        return [Access(PRUNED, self.name, "", (str(head.n), head.seal))]

    def _write(self, accesses: list[Access]) -> None:
        n, seal = self.head.n, self.head.seal
        lines = []
        for access in accesses:
            n += 1
            whole = msgspec.structs.replace(access, n=n, by=self.name, at=access.at or now_ms())
            line = msgspec.json.encode(whole)
            seal = _seal(seal, line)
            lines.append(line[:-1] + _SEAL + seal.encode() + b'"}\n')
        data = b"".join(lines)
        at = 0
        while at < len(data):
            at += os.write(self._file, data[at:])
        os.fdatasync(self._file)
        self.head = Head(n, seal)
        self._size += len(data)
        told = msgspec.json.encode(self.head)
        os.pwrite(self._lock, told.ljust(128) + b"\n", 0)


def names_in(folder: Path) -> list[str]:
    """Return the names of the journals in a folder."""
    return sorted({one.name.rsplit(".", 3)[0] for one in folder.glob("*.jsonl")})


def files_of(folder: Path, name: str) -> list[Path]:
    """Return the files of a journal, the oldest first."""
    found = [one for one in folder.glob("*.jsonl") if one.name.rsplit(".", 3)[0] == name]
    return sorted(found, key=lambda one: (one.name.split(".")[-2], one.name))


def read(folder: Path, name: str) -> Iterator[Line]:
    """Yield the lines of a journal in order, each with what is wrong with it."""
    seal, n = "", 0
    for file in files_of(folder, name):
        with file.open("rb") as lines:
            for raw in lines:
                line = _line_of(raw)
                if line is None:
                    if raw.endswith(b"\n"):
                        yield Line(Access("?", "?", n=n + 1), seal, "unreadable")
                    continue  # else half a line, of power that went
                access = line.access
                if not seal:  # the oldest file that there is
                    seal, n = (access.ids or (BEGIN,))[0], access.n - 1
                fault = ""
                if access.n != n + 1:
                    fault = "missing"
                elif _seal(seal, _bare(raw)) != line.seal:
                    fault = "changed"
                elif access.what == CUT:
                    fault = "cut"
                seal, n = line.seal, access.n
                yield line._replace(fault=fault)


def head_of(folder: Path, name: str) -> Head:
    """Return what the file beside a journal says of its last line."""
    try:
        return _read_head((folder / f"{name}.head").read_bytes()[:200])
    except OSError:
        return Head()


def _read_head(told: bytes) -> Head:
    try:
        return msgspec.json.decode(told.strip() or b"{}", type=Head)
    except UNREADABLE:
        return Head()


def _end_of(file: Path) -> tuple[Head, int]:
    """Return the last whole line of a file, and how many bytes there are up to its end."""
    data = file.read_bytes()
    length = data.rfind(b"\n") + 1
    while length:
        start = data.rfind(b"\n", 0, length - 1) + 1
        line = _line_of(data[start:length])
        if line is not None:
            return Head(line.access.n, line.seal), length
        length = start
    return Head(), 0


def _line_of(raw: bytes) -> Line | None:
    bare = _bare(raw)
    if bare == raw:
        return None
    try:
        return Line(msgspec.json.decode(bare, type=Access), raw[-67:-3].decode())
    except UNREADABLE:
        return None


def _bare(raw: bytes) -> bytes:
    """Return a line without its seal."""
    at = len(raw) - 1 - _SEALED
    return raw[:at] + b"}" if at > 0 and raw[at : at + len(_SEAL)] == _SEAL else raw


def _seal(before: str, line: bytes) -> str:
    return hashlib.sha256(before.encode() + line).hexdigest()


def _open(file: Path, flags: int) -> int:
    return os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _day_of(ms: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(ms / 1000))
