"""What the exchange told and the bus has not taken yet: the exchange does not wait, so we may not.

Messages go to the bus in the order in which they were put here. A few are in memory; all of them
are in a file until the bus has them, so that neither an outage of the bus nor an end of this
process costs any: whoever starts next sends them again, under the same ids. The file is its owner's
alone (numbers are in it), bounded, and emptied whenever the bus has everything.
"""

import asyncio
import contextlib
import os
from collections import deque
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from connectors.runtime.log import LOG
from connectors.runtime.ownfile import refuse_link
from connectors.runtime.statefile import Alarm, may_pass
from proto.message import Message
from proto.wording import text

MEMORY_MAX: Final = 5_000  # messages
FILE_BYTES_MAX: Final = 512 * 1024 * 1024
CHUNK: Final = 1_000  # lines read back at a time


class _Line(msgspec.Struct, omit_defaults=True):
    """A message as the file has it: whoever looks for a person finds him in the body."""

    message: str
    type: str
    source: str
    subject: str
    time: int
    priority: int
    body: msgspec.Raw
    correlation_id: str | None = None

    def restored(self) -> Message:
        return Message(
            self.message, self.type, self.source, self.subject, self.time, self.priority,
            body=bytes(self.body), correlation_id=self.correlation_id,
        )  # fmt: skip


_decoder: Final = msgspec.json.Decoder(_Line)


def _line(message: Message) -> bytes:
    line = _Line(
        message.id, message.type, message.source, message.subject, message.time,
        message.priority, msgspec.Raw(message.body), message.correlation_id,
    )  # fmt: skip
    return msgspec.json.encode(line) + b"\n"


class Unsent(Alarm):
    """A queue whose `put` never waits. Without a file it holds MEMORY_MAX messages, and drops what
    is more: told once, and counted."""

    def __init__(
        self, live_calls: Path | None, memory_max: int = MEMORY_MAX, bytes_max: int = FILE_BYTES_MAX
    ) -> None:
        super().__init__(live_calls and live_calls.with_name(f"{live_calls.name}.unsent"))
        self._memory_max = memory_max
        self._bytes_max = bytes_max
        self._memory: deque[Message] = deque()
        self._came = asyncio.Event()
        self._all_done = asyncio.Event()
        self._writing: BinaryIO | None = None
        self._reading: BinaryIO | None = None
        self._in_file_only = 0  # behind those in memory
        self._size = 0
        self.put_count = 0
        self.done_count = 0
        self.dropped = 0

    def open(self) -> None:
        """Take up what an earlier process left. Raises OSError for a file that cannot be."""
        if self.file is None:
            return
        try:
            self._open(self.file)
        except OSError as error:
            if not may_pass(error):
                raise
            self.failed(error)

    def _open(self, file: Path) -> None:
        refuse_link(file)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._writing = os.fdopen(os.open(file, flags, 0o600), "ab", buffering=0)
        os.fchmod(self._writing.fileno(), 0o600)
        self._reading = file.open("rb")
        self._size = file.stat().st_size
        if self._size:
            self._writing.write(b"\n")  # of a line that was torn
            self._size += 1
        self._in_file_only = sum(line.startswith(b"{") for line in self._reading)
        self._reading.seek(0)
        self.put_count += self._in_file_only
        self._refill()

    @property
    def waiting(self) -> int:
        """How many messages the bus has not taken."""
        return self.put_count - self.done_count

    def put(self, message: Message) -> None:
        """Take a message."""
        written = self._write(message)
        if self._in_file_only or len(self._memory) >= self._memory_max:
            if not written:
                self._drop()
                return
            self._in_file_only += 1
        else:
            self._memory.append(message)
            if self._reading is not None and written:
                self._reading.seek(self._size)
        self.put_count += 1
        self._came.set()

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            LOG.error(text("connector.ats_dropped", count=self._memory_max))

    def _write(self, message: Message) -> bool:
        if self._writing is None and self.file is not None:
            self.look()
        line = _line(message)
        if self._writing is None or self._size + len(line) > self._bytes_max:
            return False
        try:
            if self._writing.write(line) < len(line):
                self._writing.truncate(self._size)
                raise OSError(28, os.strerror(28))
        except OSError as error:
            self.failed(error)
            return False
        self._size += len(line)
        self.well()
        return True

    def look(self) -> None:
        """Try again to use the file, when it could not be."""
        if self.file is not None and self._writing is None and not self._memory:
            with contextlib.suppress(OSError):
                self._open(self.file)

    async def get(self, count: int) -> list[Message]:
        """Return the next messages, at most so many; waits for one. They are `done` when the bus
        has them, or wants none of them."""
        while not self._memory:
            self._refill()
            if not self._memory:
                self._came.clear()
                await self._came.wait()
        return [self._memory.popleft() for _ in range(min(count, len(self._memory)))]

    def _refill(self) -> None:
        if self._reading is None:
            return
        for _ in range(min(CHUNK, self._in_file_only)):
            while (line := self._reading.readline()) and not line.startswith(b"{"):
                continue
            self._in_file_only -= 1
            try:
                self._memory.append(_decoder.decode(line).restored())
            except msgspec.DecodeError:  # torn by a lost machine
                self.put_count -= 1

    async def all_done(self) -> None:
        """Wait until the bus has everything."""
        while self.waiting:
            self._all_done.clear()
            await self._all_done.wait()

    def done(self, count: int) -> None:
        """The bus has taken so many more."""
        self.done_count += count
        if self.done_count == self.put_count:
            self._all_done.set()
        if self.done_count == self.put_count and self._writing is not None and self._size:
            try:
                self._writing.truncate(0)
            except OSError as error:
                self.failed(error)
                return
            self._size = 0
            if self._reading is not None and self.file is not None:
                self._reading.close()  # its buffer may still hold what was there
                self._reading = self.file.open("rb")

    def close(self) -> None:
        """Close the file; what is in it is sent after the next start."""
        for one in (self._writing, self._reading):
            if one is not None:
                one.close()
        self._writing = self._reading = None
