"""The asyncio client of the bus.

    async with BusClient("ipc:///run/smpbus/bus.sock", name="smp", key=key, server_key=pub) as bus:
        await bus.publish(bus.message("call.status.v1", status, subject="112-4711"))
        async for delivery in bus.consume("smp"):
            delivery.ack()

`publish` returns when the router has the message on disk. What is published concurrently travels
in one frame. The client finds a lost router within a second, greets it again when it is back, and
repeats what was not accepted under the same ids, so that nothing is doubled.

`BusClient` is the front; behind it are the session (session.py) and what is done in it
(publisher.py, consumer.py, questions.py).
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from . import frames
from .consumer import Consumer, Delivery, Handler, Reject, Retry, settle_as, settle_by
from .dealer import check_name, encode_json, tell_error, tell_granting
from .errors import BusError, Code, NotConnected, Refused
from .keys import KeyPair
from .message import Message
from .peer import Granting
from .publisher import Outcome, Publisher, PublishStream
from .questions import Questions, Server
from .session import Session

__all__ = [
    "BusClient", "Consumer", "Delivery", "Handler", "Outcome", "PublishStream", "Reject", "Retry",
    "Server", "settle_as", "settle_by", "tell_error", "tell_granting",
]  # fmt: skip


class BusClient:
    """A session on the bus; see the module's docstring. One per process is enough."""

    def __init__(
        self,
        address: str,
        *,
        name: str,
        key: KeyPair | Path | None = None,
        server_key: bytes | Path | None = None,
        connect_timeout_s: float = 10.0,
    ) -> None:
        """`key` and `server_key` may be None only for a router that runs without CURVE."""
        self.address = address
        self.name = name
        self.on_error: Callable[[frames.Error], None] = tell_error
        self.on_granting: Callable[[Granting], None] = partial(tell_granting, self)
        self._connect_timeout_s = connect_timeout_s
        self._session = session = Session(address, name, key, server_key)
        self._publisher = Publisher(session)
        self._questions = Questions(session)
        self._consumers: dict[str, Consumer] = {}
        session.on[frames.Deliver] = self._on_deliver
        session.on[frames.Error] = self._on_error
        session.on[Granting] = self._on_granting
        session.on_lost.append(self._on_lost)
        session.on_fatal.append(self._on_fatal)

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await asyncio.wait_for(self._session.welcomed.wait(), self._connect_timeout_s)
            self.raise_if_dead()
        except TimeoutError:
            await self.close()
            within = f"{self._connect_timeout_s:g} s"
            sentence = f"no answer from the router at {self.address} in {within}"
            raise NotConnected(self.trouble or sentence) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin connecting and return at once; for connectors, which outlive an absent router."""
        self._session.start()

    async def wait_welcomed(self) -> None:
        """Wait until the router has welcomed this session. Raises BusError if it never will."""
        await self._session.welcomed.wait()
        self.raise_if_dead()

    async def close(self) -> None:
        """Say BYE, stop reading, give unsent frames a moment to leave."""
        for consumer in list(self._consumers.values()):
            consumer.close()
        await self._session.close()

    @property
    def refused(self) -> dict[str, str]:
        """The destinations that the router does not give now, each with the code that says why."""
        return {name: code for name, code in self._session.peer.refused.items() if code}

    @property
    def connected(self) -> bool:
        """Whether the router has welcomed this session and is still heard."""
        return self._session.connected

    @property
    def reconnects(self) -> int:
        """How often a connection or a session was over and another one was tried."""
        return self._session.reconnects

    @property
    def trouble(self) -> str:
        """Why no session comes about, where more is known than silence; else ""."""
        return self._session.trouble

    @property
    def bus(self) -> str:
        """The name of the router's store, from the first WELCOME on; "" before."""
        return self._session.bus

    def raise_if_dead(self) -> None:
        """Raise the BusError that ended this session for good, if one did."""
        self._session.raise_if_dead()

    # -- publishing ---------------------------------------------------------------------------

    def message(self, type: str, body: object = b"", **envelope: object) -> Message:
        """Make a message from this peer; see `Message.new` for the envelope's keywords."""
        return Message.new(type, self.name, body, **envelope)  # type: ignore[arg-type]

    async def publish(self, message: Message) -> None:
        """Publish one message; returns when it is on the router's disk. Raises Refused."""
        await self._publisher.publish(message)

    async def publish_many(self, messages: Sequence[Message]) -> list[Refused | None]:
        """Publish several in as few frames as they fit in; returns for each None or why it was
        refused. One that no frame can hold is refused (`body_too_large`), and the others go."""
        return await self._publisher.publish_many(messages)

    def stream(self, window: int = 1000) -> PublishStream:
        """Return a pipelined publisher with at most `window` messages unaccepted."""
        return PublishStream(self._publisher, window)

    # -- consuming ----------------------------------------------------------------------------

    def consume(self, destination: str, *, credit: int = 64) -> Consumer:
        """Return the deliveries of `destination`, at most `credit` of them unsettled.

        A destination that the router does not give yet (no such queue, no right) is asked for
        again until it does; `refused` says so, and one line. Raises ValueError for what is no name
        or no credit.
        """
        if destination in self._consumers:
            raise ValueError(f"{destination} is consumed by this client already")
        check_name(destination)
        if not 0 <= credit <= frames.WINDOW_MAX:
            raise ValueError(f"a credit of {credit}, of {frames.WINDOW_MAX}")
        consumer = Consumer(self._session, destination, credit, self._consumers)
        consumer.widen(credit)
        return consumer

    async def handle(self, destination: str, handler: Handler, *, credit: int = 64) -> None:
        """Run `handler` for each delivery, concurrently up to `credit`, until cancelled.

        Its return value (or None) becomes the note of the ack; `Retry` and `Reject` settle so; any
        other exception is a retry under its class name only, since its text may hold personal data.
        """
        consumer = self.consume(destination, credit=credit)
        try:
            async for delivery in consumer:
                self._session.spawn(settle_by(handler, delivery))
        finally:
            consumer.close()

    # -- request and reply, report --------------------------------------------------------------

    async def request(
        self, destination: str, message: Message, *, timeout_s: float = 5.0
    ) -> frames.Reply:
        """Ask whoever serves `destination`; `timeout_s` is above 0 and at most 600 seconds.

        Raises RequestFailed with the code and a sentence, ValueError for another time limit or what
        is no name.
        """
        return await self._questions.ask(destination, message, timeout_s)

    def serve(self, destination: str, server: Server) -> None:
        """Answer requests to `destination` with what `server(message)` returns (JSON or bytes).

        A destination that the router does not give yet is asked for again, as by `consume`.
        """
        self._questions.serve(destination, server)

    def report(self, report: object) -> None:
        """Tell operators how this process is: a `PeerReport` of `report`, or JSON of its shape as
        bytes. Never waits; the newest replaces the one before. Raises ValueError when too long."""
        body = report if isinstance(report, bytes) else encode_json(report)
        self._session.peer.report(body)
        self._session.send()

    # -- what the router says -----------------------------------------------------------------

    def _on_deliver(self, deliver: frames.Deliver) -> None:
        if consumer := self._consumers.get(deliver.destination):
            consumer.deliver(deliver.deliveries)

    def _on_error(self, error: frames.Error) -> None:
        self.on_error(error)
        if error.verb == frames.REQUEST.decode():  # it does not say which one
            self._questions.fail(error.code, error.sentence)
        if self._session.peer.fatal is not None:
            self._session.end(self._session.peer.fatal)

    def _on_granting(self, granting: Granting) -> None:
        self._session.note_granting()
        self.on_granting(granting)

    def _on_lost(self) -> None:
        for consumer in self._consumers.values():
            consumer.drop_unread()
        self._questions.fail(Code.NO_CONSUMER, "the router went away")

    def _on_fatal(self, fatal: BusError) -> None:
        for consumer in self._consumers.values():
            consumer.wake()
        self._questions.fail(fatal.code, fatal.sentence)
