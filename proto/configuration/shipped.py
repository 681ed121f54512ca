"""Where the configuration that comes with smpbus is, in a checkout or installed."""

import sys
from pathlib import Path


def shipped_folder() -> Path:
    """Return the folder of the configuration that smpbus brings along."""
    checkout = Path(__file__).parents[2] / "config"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share/smpbus/config"
