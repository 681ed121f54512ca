"""The calls that were live when the connector ended, however it ended.

A line is added when a call begins and when the bus has taken its end; the file is made short again
at each start. Numbers are in it, so only its owner may read it. A disk that is full costs the calls
of that time their end after a restart, and nothing else.
"""

import errno
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.partners.ats.calls import Call
from connectors.runtime.statefile import Alarm, may_pass

LATE_MAX: Final = 10_000  # lines that wait for the disk


class LiveCalls(Alarm):
    """A file of JSON lines; without one nothing outlives the process."""

    def __init__(self, file: Path | None) -> None:
        super().__init__(file)
        self._file = file
        self._descriptor: int | None = None
        self._late: deque[bytes] = deque(maxlen=LATE_MAX)

    def open(self) -> list[dict[str, Any]]:
        """Return the calls that had no end yet. Raises OSError for a file that cannot be."""
        try:
            return self._open()
        except OSError as error:
            if not may_pass(error):
                raise
            self.failed(error)
            return []

    def _open(self) -> list[dict[str, Any]]:
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
        short.unlink(missing_ok=True)  # of a lost machine, or a link that another laid
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(short, flags, 0o600)
        for record in live.values():
            self._add(record)
        if self.reason:  # no room for a short one: the old one goes on
            self.close()
            short.unlink()
        else:
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
        if self._file is not None:
            self._late.append(msgspec.json.encode(record) + b"\n")
            self._write()

    def look(self) -> None:
        """Write down what could not be."""
        if self.reason:
            self._write()

    def _write(self) -> None:
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
                self._descriptor = os.open(str(self._file), flags, 0o600)
            while self._late:
                line = self._late[0]
                if os.write(self._descriptor, line) < len(line):
                    self._late[0] = b"\n" + line.lstrip()
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._late.popleft()
        except OSError as error:  # half a line is passed over at the next start
            self.failed(error)
        else:
            self.well()
