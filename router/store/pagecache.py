"""Keeps the journal's history out of the system's page cache.

History is written once and seldom read. Left alone it would push out of memory what others need,
and for each new page the system would have to find and clear one: on a virtual machine that costs
more than everything else in a commit (docs/decisions/0003).
"""

import contextlib
import os
from pathlib import Path
from typing import Final

KEEP_BYTES: Final = 128 * 1024 * 1024
STEP_BYTES: Final = 16 * 1024 * 1024


class PageCache:
    """What the system keeps in memory of one file that grows at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._dropped = 0

    def trim(self) -> None:
        """Let all but the newest part go. Only a hint: nothing depends on it."""
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.open(str(self._path), os.O_RDONLY | os.O_CLOEXEC)
            upto = os.fstat(self._descriptor).st_size - KEEP_BYTES
            if upto >= self._dropped + STEP_BYTES:
                length = upto - self._dropped
                os.posix_fadvise(self._descriptor, self._dropped, length, os.POSIX_FADV_DONTNEED)
                self._dropped = upto

    def close(self) -> None:
        """Give the file back. Only after SQLite has: closing any descriptor of a file gives up
        the locks that the process holds on it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
