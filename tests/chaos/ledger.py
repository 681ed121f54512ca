"""What a process of the campaign writes down before it goes on: a line each, kept over its death.

A line is one write: the kernel has it whole once the call returns, however the process ends. Only
the last one may be torn, and then what it speaks of was not done.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Ledger:
    """A file of JSON lines that is only ever added to."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._descriptor, b"\n")  # ends what a killed forerunner may have begun

    def add(self, **line: Any) -> None:
        """Write one line."""
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a ledger."""
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            if line.endswith(b"}"):
                yield json.loads(line)
