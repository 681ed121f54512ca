"""Files that a connector or a command writes: its owner's alone, and no link of a stranger is
followed: where others may write, a name that can be foreseen may be a link that they laid."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

OTHERS_WRITE: Final = 0o022


def refuse_link(file: Path) -> None:
    """Raise OSError when `file` is a link in a folder that others may write to. Where only its
    owner may, a link is the administrator's own wish."""
    if file.is_symlink() and file.parent.stat().st_mode & OTHERS_WRITE:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))


def replace_file(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Write `file` anew, whole or not at all: by another name that nobody can foresee. A link of
    its name is replaced, not followed. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as made:
            made.write(content)
            os.fchmod(made.fileno(), mode)
            made.flush()
            os.fsync(made.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
