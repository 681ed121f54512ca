"""What is fuzzed: one target reads one kind of input. Its inputs come in groups that share a state,
so that memory stays flat and each input can be met again by playing its group up to it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

import msgspec

from connectors.runtime.bus.ingress import Ingress
from proto import frames
from proto.client import BusClient, Delivery, Reject, Retry
from proto.errors import Code, Refused, RequestFailed
from proto.message import TYPE_GRAMMAR, Message, decode_message, encode_message
from proto.wording import text

BODY_MAX: Final = 1024 * 1024
SHOWN: Final = 300
READ: Final = "read"
REFUSED: Final = "refused"


class Target:
    """Opened once for each group; `run` makes input by `random` alone and lets it be read.

    Whatever `run` raises is a finding; what a reader is allowed to raise is caught by the target.
    `shown` is the newest input, for whoever reads of it.
    """

    name: ClassVar[str]
    weight: ClassVar[float] = 0.8
    group: ClassVar[int] = 1000

    def __init__(self) -> None:
        self.shown: object = b""

    async def open(self, folder: Path) -> None:
        """Make the state of a group."""

    async def run(self, random: Random) -> str:
        """Read one input; return in a word what came of it, for the table."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of the state; may raise for what is wrong with it."""


class Wrong(Exception):
    """Something that must not be, in a sentence."""


class Taking(BusClient):
    """A bus that takes what the router would take, and refuses what it would refuse."""

    def __init__(self, name: str) -> None:
        super().__init__("ipc:///nowhere", name=name)
        self._loop = asyncio.get_running_loop()
        self.taken = 0

    @property
    def connected(self) -> bool:
        """Always."""
        return True

    async def publish(self, message: Message) -> None:
        """Read it as the router reads it. Raises Refused."""
        try:
            raw = encode_message(message)
            decode_message(raw)
        except (msgspec.DecodeError, UnicodeError, OverflowError) as error:
            raise Refused(Code.BAD_MESSAGE, type(error).__name__) from None
        if not TYPE_GRAMMAR.fullmatch(message.type):
            raise Refused(Code.BAD_MESSAGE, "type")
        if len(message.body) > BODY_MAX:
            raise Refused(Code.BODY_TOO_LARGE, "body")
        self.taken += 1

    async def publish_many(self, messages: Any) -> list[Refused | None]:
        """See publish."""
        results: list[Refused | None] = []
        for message in messages:
            try:
                await self.publish(message)
                results.append(None)
            except Refused as refused:
                results.append(refused)
        return results

    async def request(
        self, destination: str, message: Message, *, timeout_s: float = 5.0
    ) -> frames.Reply:
        """Nobody serves anything here."""
        encode_message(message)
        raise RequestFailed(Code.NO_CONSUMER, "nobody serves this")

    async def close(self) -> None:
        """Nothing is open."""


class Taker:
    """Stands where a consumer is: what its deliveries come to must be readable to the router."""

    bus = "fuzz"  # its name, in idempotency keys

    def __init__(self, client: Taking) -> None:
        self.client = client

    def settle(self, delivery: Delivery, settlement: frames.Settlement) -> None:
        """Read it as the router reads it. Raises Wrong."""
        delivery.settled = True
        raw = frames.encode(frames.Settle([settlement]))
        try:
            frames.ROUTER_READS[frames.SETTLE].decode(raw)
        except msgspec.DecodeError as error:
            raise Wrong(f"a settlement that the router does not read: {error}") from None


async def settle(handle: Callable[[Delivery], Awaitable[Any]], delivery: Delivery) -> str:
    """Do what the client does with what comes of a delivery, but let a mistake through; return in a
    word what came of it."""
    try:
        note = await handle(delivery)
    except Retry as retry:
        delivery.retry(str(retry), retry.after_s)
        return "retry"
    except Reject as reject:
        delivery.reject(str(reject))
        return "reject"
    else:
        if not delivery.settled:
            delivery.ack(note)
    return "done"


def ingress(name: str) -> Ingress:
    """Return a way onto the bus that takes."""
    return Ingress(Taking(name), 5.0, 1)


class Lines(logging.Handler):
    """Keeps what a log says of mistakes: exceptions with a traceback, and our own word for them."""

    def __init__(self, mistake: str) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        self._mistake = mistake

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line when it tells of a mistake."""
        said = record.getMessage()
        if record.exc_info:
            kind = record.exc_info[0]
            self.found.append(f"traceback in the log: {kind.__name__ if kind else ''} {said}")
        elif self._mistake in said or "Traceback" in said:
            self.found.append(f"in the log: {said}")


def mistake() -> str:
    """Return what a line of the log begins with when a connector made a mistake."""
    return text("connector.mistake", id="\0", kind="").partition("\0")[0].strip()


def spent_s() -> float:
    """Return the processor time of this process: a busy machine does not count."""
    return time.process_time()


def show(value: object) -> str:
    """Return an input as a line."""
    said = repr(value)
    return said if len(said) <= SHOWN else f"{said[:SHOWN]}... ({len(said)} characters)"
