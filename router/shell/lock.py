"""One router per data folder: a lock that dies with its process."""

import fcntl
import os
from pathlib import Path

from proto.exits import EX_CANTCREAT, EX_TEMPFAIL, StartError
from proto.wording import text

FILE = "router.lock"


def lock_folder(folder: Path, file: Path) -> int:
    """Make and lock the data folder; return the descriptor that holds the lock.

    Raises StartError when the folder cannot be written or another router holds it; `file` is the
    configuration file to name.
    """
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
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
