"""Where the configuration is: the region's own files, else those that come with smpbus."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from proto.configuration.shipped import shipped_folder

NAME: Final = "smpbus.toml"
SYSTEM_FILE: Final = Path("/etc/smpbus") / NAME
VARIABLE: Final = "SMPBUS_CONFIG"


def find_file(given: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the absolute path of smpbus.toml: given, $SMPBUS_CONFIG, /etc, the one brought along.

    A folder stands for the smpbus.toml in it. Whether it is there is said by whoever reads it.
    """
    named = (os.environ if environ is None else environ).get(VARIABLE)
    path = given or (Path(named) if named else None)
    if path is None:
        path = SYSTEM_FILE if SYSTEM_FILE.exists() else shipped_folder() / NAME
    path = path.absolute()
    return path / NAME if path.is_dir() else path


def find_table(name: str) -> Path:
    """Return the table `name` ("statuses.toml"): beside the region's smpbus.toml ($SMPBUS_CONFIG,
    /etc/smpbus) if it is there, else the one brought along."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else SYSTEM_FILE.parent
    own = (folder if folder.is_dir() else folder.parent) / name
    return own if own.is_file() else shipped_folder() / name
