"""The seam to SQLite's C interface: failures reach it as result codes.

A Python exception in a VFS is raised again by apsw even where SQLite itself shrugs an error off
(in the checkpoint after a commit, or at a close). The real VFS has no such second voice, so a
failure here must have none either: the methods of `vfs.py` leave a code and return, and these few
functions, put between SQLite and apsw, hand it over.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_int, c_int64, c_void_p
from typing import Any, Final

import apsw

_OPEN: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_DELETE: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_CLOSE: Final = CFUNCTYPE(c_int, c_void_p)
_READ: Final = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE: Final = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC: Final = CFUNCTYPE(c_int, c_void_p, c_int)
_SIZE: Final = CFUNCTYPE(c_int, c_void_p, c_void_p)


class _Vfs(Structure):
    """The head of sqlite3_vfs."""

    _fields_ = [
        ("version", c_int), ("file_bytes", c_int), ("path_max", c_int), ("next", c_void_p),
        ("name", c_void_p), ("data", c_void_p), ("open", _OPEN), ("delete", _DELETE),
    ]  # fmt: skip


class _Methods(Structure):
    """sqlite3_io_methods, version 1."""

    _fields_ = [
        ("version", c_int), ("close", _CLOSE), ("read", _READ), ("write", _READ),
        ("truncate", _TRUNCATE), ("sync", _SYNC), ("size", _SIZE), ("rest", c_void_p * 6),
    ]  # fmt: skip


class Codes:
    """Hands the codes that a VFS leaves over to SQLite."""

    def __init__(self) -> None:
        self.left = 0
        self._methods: _Methods | None = None
        self._kept: list[Any] = []  # what C points to

    def attach(self, probe: apsw.Connection) -> None:
        """Step between SQLite and the VFS of a connection, which is closed."""
        pointer = c_void_p()
        probe.file_control("main", apsw.SQLITE_FCNTL_VFS_POINTER, ctypes.addressof(pointer))
        probe.close()
        vfs = _Vfs.from_address(pointer.value or 0)
        opened, deleted = _OPEN(_address(vfs.open)), _DELETE(_address(vfs.delete))
        self._kept += [opened, deleted]
        vfs.open = _OPEN(self._opening(opened))
        vfs.delete = _DELETE(self._handing(deleted))
        self._kept += [vfs.open, vfs.delete]

    def _handing(self, original: Callable[..., int]) -> Callable[..., int]:
        def call(*values: Any) -> int:
            code = original(*values)
            if self.left:
                code, self.left = self.left, 0
            return code

        return call

    def _opening(self, original: Callable[..., int]) -> Callable[..., int]:
        def call(vfs: int, name: int, file: int, flags: int, out: Any) -> int:
            code = original(vfs, name, file, flags, out)
            if code:
                return code
            methods = c_void_p.from_address(file)
            if self._methods is None:
                self._methods = self._wrapped(_Methods.from_address(methods.value or 0))
            if self.left:
                self._methods.close(file)
                methods.value = None
                code, self.left = self.left, 0
            else:
                methods.value = ctypes.addressof(self._methods)
            return code

        return call

    def _wrapped(self, original: _Methods) -> _Methods:
        mine = _Methods(version=1, close=original.close, rest=original.rest)
        for name, kind in (
            ("read", _READ), ("write", _READ), ("truncate", _TRUNCATE), ("sync", _SYNC),
            ("size", _SIZE),
        ):  # fmt: skip
            theirs = kind(_address(getattr(original, name)))
            ours = kind(self._handing(theirs))
            self._kept += [theirs, ours]
            setattr(mine, name, ours)
        return mine


def _address(function: Any) -> int:
    return ctypes.cast(function, c_void_p).value or 0
