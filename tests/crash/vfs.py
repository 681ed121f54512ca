"""The mount: SQLite and the store's own calls of the system, led to disks in memory.

What is rebuilt here is SQLite's `unix` VFS as far as durability goes: the folder is synced with
the first sync of a new log or journal, and with a deletion when SQLite asks for it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, Final

import apsw

from router.store import history, reader, sqlite
from tests.crash.codes import Codes
from tests.crash.disk import DISKS, Disk, DiskPath, InjectedError

NAME: Final = "crash"
SECTOR_BYTES: Final = 4096  # what the unix VFS says
POWERSAFE_OVERWRITE: Final = 0x1000
SYNCED_WITH_FOLDER: Final = (
    apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
)


class Connection(apsw.Connection):
    """A connection to a database on a disk in memory."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, vfs=NAME, **options)


class MemoryVfs(apsw.VFS):
    """Files of the disks in DISKS."""

    def __init__(self) -> None:
        self.codes = Codes()
        self._random = count(1)
        super().__init__(NAME, base="")
        disk = Disk()
        self.codes.attach(Connection(f"{disk.root}/probe"))
        disk.detach()

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        """Open, creating if that is asked for."""
        disk, entry = _at(name.filename() if isinstance(name, apsw.URIFilename) else name)
        inode, is_new = disk.find(entry), False
        try:
            disk.call("open", entry)
            if inode is None and flags[0] & apsw.SQLITE_OPEN_CREATE:
                inode, is_new = disk.create(entry), True
        except InjectedError:
            inode = None
        if inode is None:
            self.codes.left = apsw.SQLITE_CANTOPEN
        flags[1] = flags[0]
        syncs_folder = is_new and bool(flags[0] & SYNCED_WITH_FOLDER)
        return MemoryFile(self.codes, disk, inode or 0, syncs_folder)

    def xDelete(self, path: str, sync_folder: bool) -> None:
        """Unlink. A process that has died cannot, though Python still closes its files."""
        if path.rpartition("/")[0] not in DISKS:
            return
        disk, entry = _at(path)
        code = apsw.SQLITE_IOERR_DELETE
        try:
            disk.unlink(entry)
            code = apsw.SQLITE_IOERR_DIR_FSYNC
            if sync_folder:
                disk.sync_folder()
        except FileNotFoundError:
            self.codes.left = apsw.SQLITE_IOERR_DELETE_NOENT
        except InjectedError:
            self.codes.left = code

    def xAccess(self, path: str, flags: int) -> bool:
        """Whether it exists. The unix VFS takes any failure for a no."""
        disk, entry = _at(path)
        try:
            disk.call("access", entry)
        except InjectedError:
            return False
        inode = disk.find(entry)
        if inode is None:
            return False
        return flags != apsw.SQLITE_ACCESS_EXISTS or bool(disk.contents[inode])

    def xFullPathname(self, path: str) -> str:
        """Names are absolute already."""
        return path

    def xRandomness(self, size: int) -> bytes:
        """The same for the same run."""
        return (next(self._random).to_bytes(4, "little") * (size // 4 + 1))[:size]

    def xSleep(self, microseconds: int) -> int:
        """Nobody waits here."""
        return microseconds

    def xCurrentTimeInt64(self) -> int:
        """A time."""
        return 212_450_000_000_000

    def xCurrentTime(self) -> float:
        """A time."""
        return 2_460_000.5

    def xGetLastError(self) -> tuple[int, str]:
        """Nothing to tell."""
        return 0, ""


class MemoryFile:
    """One open file. A method that fails leaves its code and returns."""

    def __init__(self, codes: Codes, disk: Disk, inode: int, syncs_folder: bool) -> None:
        self.codes = codes
        self.disk = disk
        self.inode = inode
        self.syncs_folder = syncs_folder

    def xRead(self, amount: int, offset: int) -> bytes:
        """Read; short at the end."""
        disk = self.disk
        try:
            disk.call("read", self.inode)
        except InjectedError:
            self.codes.left = apsw.SQLITE_IOERR_READ
            return b""
        return bytes(disk.contents[self.inode][offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write."""
        try:
            self.disk.write(self.inode, offset, bytes(data))
        except InjectedError as error:
            full = error.errno == errno.ENOSPC
            self.codes.left = apsw.SQLITE_FULL if full else apsw.SQLITE_IOERR_WRITE

    def xTruncate(self, size: int) -> None:
        """Cut."""
        try:
            self.disk.truncate(self.inode, size)
        except InjectedError:
            self.codes.left = apsw.SQLITE_IOERR_TRUNCATE

    def xSync(self, flags: int) -> None:
        """Sync, and the folder with it if the file is a new log or journal."""
        code = apsw.SQLITE_IOERR_FSYNC
        try:
            self.disk.sync(self.inode)
            code = apsw.SQLITE_IOERR_DIR_FSYNC
            if self.syncs_folder:
                self.disk.sync_folder()
                self.syncs_folder = False
        except InjectedError:
            self.codes.left = code

    def xFileSize(self) -> int:
        """Return the length."""
        try:
            self.disk.call("size", self.inode)
        except InjectedError:
            self.codes.left = apsw.SQLITE_IOERR_FSTAT
            return 0
        return len(self.disk.contents[self.inode])

    def xLock(self, level: int) -> None:
        """There is one process."""

    def xUnlock(self, level: int) -> None:
        """There is one process."""

    def xCheckReservedLock(self) -> bool:
        """There is one process."""
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        """Nothing is known here."""
        return False

    def xSectorSize(self) -> int:
        """As the unix VFS says."""
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        """As the unix VFS says."""
        return POWERSAFE_OVERWRITE

    def xClose(self) -> None:
        """Nothing to give back."""


class SystemCalls:
    """The module `os` as the store sees it: what lies in memory can be opened and synced."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Disk, int]] = {}  # a folder is file 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, *more: Any) -> int:
        """See os.open."""
        if not isinstance(path, DiskPath):
            return os.open(path, flags, *more)
        root, _, entry = str(path).removeprefix("/").partition("/")
        disk = DISKS[f"/{root}"]
        disk.call("open" if entry else "open folder", entry)
        inode = disk.find(entry) if entry else 0
        if inode is None and flags & os.O_CREAT:
            inode = disk.create(entry)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        if flags & os.O_TRUNC:
            disk.truncate(inode, 0)
        descriptor = -2 - len(self._open)
        self._open[descriptor] = disk, inode
        return descriptor

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        """See os.pread."""
        disk, inode = self._open[descriptor]
        disk.call("read", inode)
        return bytes(disk.contents[inode][offset : offset + length])

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        """See os.pwrite."""
        disk, inode = self._open[descriptor]
        disk.write(inode, offset, data)
        return len(data)

    def fsync(self, descriptor: int) -> None:
        """See os.fsync."""
        if descriptor not in self._open:
            return os.fsync(descriptor)
        disk, inode = self._open[descriptor]
        return disk.sync(inode) if inode else disk.sync_folder()

    fdatasync = fsync

    def close(self, descriptor: int) -> None:
        """See os.close."""
        if self._open.pop(descriptor, None) is None:
            os.close(descriptor)


@contextmanager
def mounted(**constants: object) -> Iterator[None]:
    """Lead SQLite and the store to the disks in memory.

    `constants` of the store's module are changed meanwhile, so that what happens every few
    thousand messages happens every few.
    """
    _vfs()
    in_memory = SimpleNamespace(**{**vars(apsw), "Connection": Connection})
    changed = {"apsw": in_memory, "os": SystemCalls(), **constants}
    places = [
        (module, name)
        for module in (sqlite, reader, history)
        for name in changed
        if name in vars(module)
    ]
    if gone := changed.keys() - {name for _, name in places}:
        raise AttributeError(f"the store has no {sorted(gone)}")
    before = [(module, name, getattr(module, name)) for module, name in places]
    for module, name in places:
        setattr(module, name, changed[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@cache
def _vfs() -> MemoryVfs:
    """Return the one there is: a connection that nobody closed may outlive the mount."""
    return MemoryVfs()


def _at(path: str) -> tuple[Disk, str]:
    root, _, entry = path.rpartition("/")
    return DISKS[root], entry
