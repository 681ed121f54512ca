"""The calls that were live when the connector ended, however it ended.

A line is added when a call begins and when the bus has taken its end; the file is made short again
at each start. Numbers are in it, so only its owner may read it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from connectors.ats.calls import Call


class LiveCalls:
    """A file of JSON lines; without one nothing outlives the process."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._descriptor: int | None = None

    def open(self) -> list[dict[str, Any]]:
        """Return the calls that had no end yet. Raises OSError."""
        if self._file is None:
            return []
        live: dict[str, dict[str, Any]] = {}
        if self._file.exists():
            for line in self._file.read_bytes().splitlines():
                try:
                    record = msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.DecodeError:  # torn by a lost machine
                    continue
                if "ended" in record:
                    live.pop(record["ended"], None)
                else:
                    live[record["id"]] = record
        short = self._file.with_name(f"{self._file.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        self._descriptor = os.open(short, flags, 0o600)
        for record in live.values():
            self._add(record)
        short.replace(self._file)
        return list(live.values())

    def began(self, call: Call) -> None:
        """Keep a call."""
        self._add({"id": call.id, "direction": call.direction, "from": call.number_from,
                   "to": call.number_to, "started_at": call.started_at.isoformat()})  # fmt: skip

    def ended(self, ids: Iterable[str]) -> None:
        """Forget calls: their end is on the router's disk."""
        for id in ids:
            self._add({"ended": id})

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _add(self, record: dict[str, Any]) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, msgspec.json.encode(record) + b"\n")
