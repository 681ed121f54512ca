"""One router per data folder: a lock that dies with its process."""

import fcntl
import os
from pathlib import Path

from proto.exits import EX_CANTCREAT, EX_TEMPFAIL, StartError
from proto.wording import text

FILE = "router.lock"
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def lock_folder(folder: Path, file: Path) -> int:
    """Make and lock the data folder; return the descriptor that holds the lock.

    Raises StartError when the folder cannot be written or another router holds it; `file` is the
    configuration file to name.
    """
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE, FLAGS, 0o640)
        # An earlier version, or whoever put a copy back, may have left it open to others.
        for one in folder.glob("journal.db*"):
            if one.stat().st_mode & 0o077 and not one.is_symlink():
                one.chmod(0o600)
    except OSError as error:
        sentence = text("router.folder_failed", folder=folder, reason=error.strerror, file=file)
        raise StartError(sentence, EX_CANTCREAT) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        sentence = text("router.folder_locked", folder=folder, pid=holder or "?", file=file)
        raise StartError(sentence, EX_TEMPFAIL) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
