"""What a partner brings goes onto the bus: accepted on disk, or the partner is told to repeat."""

import asyncio
from collections.abc import Sequence
from typing import Final

from connectors.runtime.log import LOG
from connectors.runtime.words import id_of
from proto.client import BusClient
from proto.errors import HOPELESS, TEMPORARY, BusError, Refused
from proto.message import Message
from proto.wording import text

OPEN_MAX: Final = 2000
OPEN_BYTES_MAX: Final = 64 * 1024 * 1024  # of bodies; a connector has 384 MiB
OFFER_MAX: Final = 500
REJECTED: Final = "input.rejected.v1"


class NotAccepted(Exception):
    """The bus did not take it: `temporary` means that a repeat may succeed, after some seconds."""

    def __init__(self, code: str, sentence: str, retry_after_s: int, temporary: bool) -> None:
        super().__init__(code)
        self.code = code
        self.sentence = sentence
        self.retry_after_s = retry_after_s
        self.temporary = temporary


class Ingress:
    """Publishes within a time limit; a partner's repeat joins what is still under way."""

    def __init__(self, bus: BusClient, timeout_s: float, retry_after_s: int) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._retry_after_s = retry_after_s
        self._open: dict[str, asyncio.Future[None]] = {}
        self._open_bytes = 0
        self.set_aside = 0  # messages of a poll that the bus can never take
        self.rejected = 0  # inputs of the partner that were not of the contract

    @property
    def waiting(self) -> int:
        """How many messages wait for the router."""
        return len(self._open)

    @property
    def name(self) -> str:
        """The name of this connector's session: the `source` of what it publishes."""
        return self._bus.name

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when every message is on the router's disk. Raises NotAccepted."""
        refused, all_ended = await self._outcomes(messages)
        for _, error in refused:
            raise self._verdict(error)
        if not all_ended:
            raise self._late()

    async def offer(self, messages: Sequence[Message]) -> None:
        """As `publish`, for what a poll or a cursor brings: a message that the bus can never take
        is set aside with a line, so that what is behind it goes on. Raises NotAccepted."""
        for start in range(0, len(messages), OFFER_MAX):  # a page may be longer than OPEN_MAX
            refused, all_ended = await self._outcomes(messages[start : start + OFFER_MAX])
            for message, error in refused:
                if not isinstance(error, Refused) or error.code not in HOPELESS:
                    raise self._verdict(error)
                self.set_aside += 1
                told = {"type": message.type, "id": id_of(message.id), "code": error.code}
                LOG.error(text("connector.set_aside", **told))
            if not all_ended:
                raise self._late()

    async def _outcomes(
        self, messages: Sequence[Message]
    ) -> tuple[list[tuple[Message, BaseException]], bool]:
        """Publish; return what was refused and why, and whether all has ended in time. Raises
        NotAccepted."""
        self.rejected += sum(message.type == REJECTED for message in messages)
        if not self._bus.connected:
            raise self._no("not_connected", "The service bus is away; please repeat.")
        size = sum(len(message.body) for message in messages)
        too_long = self._open and self._open_bytes + size > OPEN_BYTES_MAX
        if len(self._open) + len(messages) > OPEN_MAX or too_long:
            raise self._no("busy", "The service bus is busy; please repeat.")
        waits = [self._start(message) for message in messages]
        if not waits:
            return [], True
        _, pending = await asyncio.wait(waits, timeout=self._timeout_s)
        refused = [
            (message, error)
            for message, wait in zip(messages, waits, strict=True)
            if wait.done() and (error := wait.exception()) is not None
        ]
        return refused, not pending

    def _late(self) -> NotAccepted:
        return self._no("timeout", "The service bus did not accept this in time; repeat.")

    def _verdict(self, error: BaseException) -> BaseException:
        if isinstance(error, Refused):
            return self._refused(error)
        if isinstance(error, BusError):
            return self._no(error.code, "The service bus refused this session.")
        return error

    def _start(self, message: Message) -> "asyncio.Future[None]":
        wait = self._open.get(message.id)
        if wait is None:
            wait = asyncio.ensure_future(self._bus.publish(message))
            self._open[message.id] = wait
            self._open_bytes += len(message.body)
            wait.add_done_callback(lambda done: self._forget(message, done))
        return wait

    def _forget(self, message: Message, done: "asyncio.Future[None]") -> None:
        self._open.pop(message.id, None)
        self._open_bytes -= len(message.body)
        if not done.cancelled():
            done.exception()  # seen, even if the partner has gone

    def close(self) -> None:
        """Wait for nothing any more: whoever was not answered will repeat."""
        for wait in list(self._open.values()):
            wait.cancel()

    def _no(self, code: str, sentence: str) -> NotAccepted:
        return NotAccepted(code, sentence, self._retry_after_s, temporary=True)

    def _refused(self, error: Refused) -> NotAccepted:
        after_s = self._retry_after_s
        if error.retry_after_ms is not None:
            after_s = max(1, -(-error.retry_after_ms // 1000))
        return NotAccepted(error.code, error.sentence, after_s, error.code in TEMPORARY)
