"""Whether others may read a secret file."""

import os
import stat
from pathlib import Path
from typing import Final

CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # systemd.exec(5): the secrets of this service alone


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may read or write a file. Raises OSError.

    systemd lets a service in to its credentials by an access list where the file system has any
    (tmpfs of newer kernels); the mask of the list is shown as rights of the group, which has none.
    """
    mode = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    folder = os.environ.get(CREDENTIALS)
    if folder and path.parent == Path(folder):
        mode &= ~stat.S_IRGRP
    return bool(mode)
