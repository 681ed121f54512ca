"""The calls that were live when the connector ended, however it ended.

A line is added when what is known of a call changes, and when the bus has taken its end; the file
is made short again at each start, and when it has grown. Numbers are in it, so only its owner may
read it. A disk that is full costs the calls of that time their end after a restart, nothing else.
"""

import errno
import os
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.partners.ats.story import Call, record_of
from connectors.runtime.statefile import Alarm, may_pass

LATE_MAX: Final = 10_000  # lines that wait for the disk
GROWN_BYTES: Final = 16 * 1024 * 1024


class LiveCalls(Alarm):
    """A file of JSON lines; without one nothing outlives the process."""

    def __init__(self, file: Path | None, grown_bytes: int = GROWN_BYTES) -> None:
        super().__init__(file)
        self._file = file
        self._grown_bytes = grown_bytes
        self._descriptor: int | None = None
        self._late: deque[bytes] = deque(maxlen=LATE_MAX)
        self._live: dict[str, bytes] = {}  # the newest line of each
        self._size = 0
        self.heard_at: datetime | None = None  # when the exchange was heard last

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
                    self._heard(record)
                elif "id" in record:
                    live[record["id"]] = record
        self._live = {id: msgspec.json.encode(record) + b"\n" for id, record in live.items()}
        self._shorten()
        return list(live.values())

    def _heard(self, record: dict[str, Any]) -> None:
        try:
            self.heard_at = datetime.fromisoformat(record["heard"])
        except (KeyError, TypeError, ValueError):
            return

    def _shorten(self) -> None:
        """Write the live calls into a new file. Raises OSError for one that cannot be made."""
        if self._file is None:
            return
        self.close()
        short = self._file.with_name(f"{self._file.name}.new")
        short.unlink(missing_ok=True)  # of a lost machine, or a link that another laid
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(short, flags, 0o600)
        self._late.clear()
        self._size = 0
        self._late.extend(self._live.values())
        self._write()
        if self.reason:  # no room for a short one: the old one goes on
            self.close()
            short.unlink()
        else:
            short.replace(self._file)

    def began(self, call: Call) -> None:
        """Keep a call, as it is now: when it begins, and when more is known of it."""
        line = msgspec.json.encode(record_of(call)) + b"\n"
        if self._file is not None and self._live.get(call.id) != line:
            self._live[call.id] = line
            self._add(line)

    def ended(self, ids: Iterable[str]) -> None:
        """Forget calls: their end is on the router's disk."""
        for id in ids:
            self._live.pop(id, None)
            self._add(msgspec.json.encode({"ended": id}) + b"\n")

    def heard(self, at: datetime) -> None:
        """Keep until when the exchange was heard, if that matters to a call."""
        self.heard_at = at
        if self._live:
            self._add(msgspec.json.encode({"ended": "", "heard": at.isoformat()}) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _add(self, line: bytes) -> None:
        if self._file is None:
            return
        self._late.append(line)
        self._write()
        if self._size > self._grown_bytes and not self.reason:
            try:
                self._shorten()
            except OSError as error:
                self.failed(error)
            self._grown_bytes = max(self._grown_bytes, 2 * self._size)

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
                self._size += len(line)
        except OSError as error:  # half a line is passed over at the next start
            self.failed(error)
        else:
            self.well()
