"""Space set aside for settling, which other programs that fill the disk cannot take.

New messages are refused long before the disk is full, but other programs write on. A file beside
the journal holds some space; when hardly any is left it is given back, so that outcomes can still
be written, and taken again when there is room.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

FILE: Final = "journal.ballast"


class Ballast:
    """The file in `folder`, `size` bytes long; 0 is none."""

    def __init__(self, folder: Path, size: int, name: str = FILE) -> None:
        self._path = folder / name
        self._size = size

    @property
    def is_held(self) -> bool:
        """Whether the space is set aside."""
        return self._path.exists() and not self._path.is_symlink()

    def watch(self, free_bytes: int) -> bool:
        """Give the space back when less than it is free, and say so."""
        if free_bytes >= self._size or not self.is_held:
            return False
        self._path.unlink(missing_ok=True)
        return True

    def take(self) -> None:
        """Set the space aside, if it is not yet and there is room."""
        if self.is_held or not self._size:
            return
        if self._path.is_symlink():  # not ours: nothing is to grow elsewhere
            self._path.unlink()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError:  # no room after all, or a file system that cannot
            with contextlib.suppress(OSError):
                self._path.unlink()
        finally:
            os.close(descriptor)
