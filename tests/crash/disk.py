"""A disk in memory: files and a folder that SQLite and the store work on, call by call.

It keeps what a running kernel would show, and a log of everything that changes it, from which
`wreck.py` builds what a power loss may leave. One call in a run can be made to fail.
"""

import errno
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import PurePosixPath
from types import FrameType, SimpleNamespace
from typing import Final, NamedTuple

from router.store import history, reader, sqlite
from tests.crash.op import Op, put
from tests.crash.wreck import Platter

DISKS: Final[dict[str, "Disk"]] = {}
STORE_FILES: Final = (sqlite.__file__, reader.__file__, history.__file__)
_numbers = count(1)
ROOM_KINDS: Final = frozenset({"create", "write", "truncate", "sync", "rename", "sync folder"})


class Fault(NamedTuple):
    """The first call from the `at`-th on, of a kind if one is named, fails with `error`."""

    at: int
    error: int = errno.EIO
    kind: str = ""
    lasts: bool = False  # and so do all after it
    # After a failed sync the kernel shows what the disk has, not what its cache had:
    reverts: bool = False
    partly: bool = False  # some of what could not be synced has come to the disk all the same


class Site(NamedTuple):
    """Where in the store a call came from."""

    stack: tuple[tuple[str, int], ...]  # functions and lines, the innermost first
    kind: str
    file: str

    def __str__(self) -> str:
        places = " < ".join(f"{name}:{line}" for name, line in self.stack)
        return f"{self.kind} {self.file} in {places}"


class InjectedError(OSError):
    """The failure that was asked for."""


class Disk:
    """One folder of files, reachable by the name `root` while it exists."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.root = f"/disk-{next(_numbers)}"
        self.names: dict[str, int] = {}
        self.contents: dict[int, bytearray] = {}
        self.log: list[Op] = []
        self.born = dict(files or {})
        self.calls = 0
        self.sites: list[Site] | None = None  # where they came from, when that is wanted
        self.fault: Fault | None = None
        self.failures: list[Site] = []
        self.room: int | None = None  # bytes by which the files may grow together
        self._inodes = count(1)
        for name, content in self.born.items():
            inode = self.names[name] = next(self._inodes)
            self.contents[inode] = bytearray(content)
        DISKS[self.root] = self

    def detach(self) -> None:
        """Make the disk unreachable by name."""
        DISKS.pop(self.root, None)

    def die(self) -> "Disk":
        """End the process: return the disk as its successor finds it.

        Whatever still holds a file of this one writes to a corpse from now on, and finds nothing
        by name.
        """
        self.detach()
        heir = Disk.__new__(Disk)
        heir.__dict__.update(self.__dict__)
        heir.root = f"/disk-{next(_numbers)}"
        heir.names = dict(self.names)
        heir.contents = {inode: bytearray(content) for inode, content in self.contents.items()}
        self.log = []
        self.fault = self.sites = None
        DISKS[heir.root] = heir
        return heir

    def files(self) -> dict[str, bytes]:
        """Return what a running kernel shows."""
        return {name: bytes(self.contents[inode]) for name, inode in self.names.items()}

    @property
    def path(self) -> "DiskPath":
        """Return the folder as the store wants it."""
        return DiskPath(self.root)

    # -- what can fail ----------------------------------------------------------------------------

    def call(self, kind: str, file: int | str = "") -> None:
        """Count one call of the system. Raises InjectedError when its turn has come."""
        self.calls += 1
        if self.sites is not None:
            self.sites.append(self._site(kind, file))
        if self.fault is not None and self.calls >= self.fault.at:
            self._fail(kind, file, self.fault)

    def _fail(self, kind: str, file: int | str, fault: Fault) -> None:
        if (fault.kind and kind != fault.kind) or (
            fault.error == errno.ENOSPC and kind not in ROOM_KINDS
        ):
            return
        if not fault.lasts:
            self.fault = None
        self.failures.append(self._site(kind, file))
        raise InjectedError(fault.error, f"injected: {kind}")

    def _site(self, kind: str, file: int | str) -> Site:
        if isinstance(file, int):
            file = next((name for name, inode in self.names.items() if inode == file), "")
        frame: FrameType | None = sys._getframe(1)
        stack = []
        while frame is not None:
            if frame.f_code.co_filename in STORE_FILES:
                name = frame.f_code.co_qualname.partition(".<locals>")[0].rpartition(".")[2]
                stack.append((name, frame.f_lineno))
            frame = frame.f_back
        return Site(tuple(stack), kind, file)

    def find(self, name: str) -> int | None:
        """Return the file behind an entry."""
        return self.names.get(name)

    def create(self, name: str) -> int:
        """Make an entry and an empty file."""
        self.call("create", name)
        inode = next(self._inodes)
        self.names[name] = inode
        self.contents[inode] = bytearray()
        self.log.append(Op("create", inode, name=name))
        return inode

    def write(self, inode: int, offset: int, data: bytes) -> None:
        """Write; a write that fails has come half the way."""
        try:
            self.call("write", inode)
        except InjectedError:
            self._write(inode, offset, data[: len(data) // 2])
            raise
        growth = offset + len(data) - len(self.contents[inode])
        if self.room is not None and growth > 0:
            if growth > self.room:
                self.failures.append(self._site("write", inode))
                raise InjectedError(errno.ENOSPC, "no room")
            self.room -= growth
        self._write(inode, offset, data)

    def _write(self, inode: int, offset: int, data: bytes) -> None:
        put(self.contents[inode], offset, data)
        self.log.append(Op("write", inode, offset, data))

    def truncate(self, inode: int, size: int) -> None:
        """Cut a file."""
        self.call("truncate", inode)
        if self.room is not None:
            self.room += max(0, len(self.contents[inode]) - size)
        del self.contents[inode][size:]
        self.log.append(Op("truncate", inode, size))

    def sync(self, inode: int) -> None:
        """Sync a file. When it fails, what was to be synced will never be: kernels forget."""
        fault = self.fault
        try:
            self.call("sync", inode)
        except InjectedError:
            self.log.append(Op("lose", inode, fault is not None and fault.partly))
            if fault is not None and fault.reverts:
                self.contents[inode] = Platter(self.born).replay(self.log).synced(inode)
            raise
        self.log.append(Op("sync", inode))

    def unlink(self, name: str) -> None:
        """Take an entry out."""
        self.call("unlink", name)
        inode = self.names.pop(name, None)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        self.log.append(Op("unlink", inode, name=name))

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in one step."""
        self.call("rename", old)
        inode = self.names.pop(old, None)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", old)
        self.names[new] = inode
        self.log.append(Op("rename", inode, data=old.encode(), name=new))

    def sync_folder(self) -> None:
        """Sync the entries."""
        self.call("sync folder")
        self.log.append(Op("sync folder"))


class DiskPath(PurePosixPath):
    """What the store uses of `pathlib.Path`, on a Disk."""

    def _disk(self) -> Disk:
        return DISKS["/" + self.parts[1]]

    def exists(self) -> bool:
        """See Path.exists."""
        disk = self._disk()
        disk.call("stat", self.name)
        return disk.find(self.name) is not None

    def is_file(self) -> bool:
        """See Path.is_file."""
        return self.exists()

    def stat(self) -> SimpleNamespace:
        """See Path.stat."""
        disk = self._disk()
        disk.call("stat", self.name)
        inode = disk.find(self.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self))
        return SimpleNamespace(st_size=len(disk.contents[inode]), st_dev=1, st_ino=inode)

    def unlink(self, missing_ok: bool = False) -> None:
        """See Path.unlink."""
        try:
            self._disk().unlink(self.name)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: "DiskPath") -> "DiskPath":
        """See Path.rename."""
        self._disk().rename(self.name, target.name)
        return target

    def glob(self, pattern: str) -> list["DiskPath"]:
        """See Path.glob."""
        disk = self._disk()
        disk.call("list")
        return [self / name for name in sorted(disk.names) if PurePosixPath(name).match(pattern)]
