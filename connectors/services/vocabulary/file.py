"""Where a table of the configuration is: the region's own file, or the one that smpbus brings."""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from proto.exits import StartError
from proto.shipped import shipped_folder

FOLDER: Final = Path("/etc/smpbus")


def shipped(name: str) -> Path:
    """Return the file `name`: beside the region's smpbus.toml ($SMPBUS_CONFIG, /etc/smpbus) if it
    is there, else the one that smpbus brings along."""
    told = os.environ.get("SMPBUS_CONFIG")
    folder = FOLDER if told is None else Path(told)
    own = (folder if folder.is_dir() else folder.parent) / name
    if own.is_file():
        return own
    return shipped_folder() / name


def read_toml(file: Path) -> dict[str, Any]:
    """Return what a file holds. Raises StartError naming the file."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{file}: {error}") from None
