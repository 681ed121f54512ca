"""Consuming: deliveries, how they are settled, and what the outcome of a handler means for them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from . import frames
from .message import Message
from .peer import CLOSED_NOTE, STOPPED_NOTE
from .session import Session

_Settlement, _ACK = frames.Settlement, frames.ACK


class Retry(Exception):
    """Raised by a handler: deliver again, after `after_s` seconds if given, else by the policy.
    With `wish` the seconds are what the partner asks for, and the policy bounds them."""

    def __init__(self, reason: str, after_s: float | None = None, *, wish: bool = False) -> None:
        """Raises ValueError for a pause that is negative or no number."""
        if after_s is not None and not after_s >= 0:
            raise ValueError(f"a pause of {after_s} seconds")
        super().__init__(reason)
        self.after_s = after_s
        self.wish = wish


class Reject(Exception):
    """Raised by a handler: this message can never be delivered; make it a dead letter."""


class Delivery(msgspec.Struct, eq=False):  # made in one step: the hot path
    """One message to be settled: `ack`, `retry` or `reject`, once. Each of them raises RuntimeError
    for one that is settled already."""

    _consumer: "Consumer"
    id: int
    attempt: int
    message: Message
    generation: str = ""
    _bus: str | None = None  # that it came from; None is that of the consumer
    settled: bool = False

    __repr__ = object.__repr__  # nothing of the message

    @property
    def key(self) -> str:
        """The idempotency key for the partner: the same at every attempt, for ever, and never that
        of another message, whatever old copy of its journal the router was started on."""
        bus = self._consumer.bus if self._bus is None else self._bus
        return frames.key_of(bus, self.id, self.generation)

    def ack(self, note: str | None = None) -> None:
        """Done. `note` (the partner's answer, no personal data) is shown by `smpbus trace`, its
        first 300 characters."""
        if note is None:  # the hot path
            settlement = _Settlement(self.id, _ACK, None, None, self.generation)
        else:
            settlement = self._settlement(frames.ACK, note)
        self._consumer.settle(self, settlement)

    def retry(self, reason: str, after_s: float | None = None, *, wish: bool = False) -> None:
        """Not now: deliver again after `after_s` seconds, or by the destination's policy; with
        `wish` after that time as far as the policy allows it.

        Raises ValueError for a pause that is negative or no number; it is unsettled then.
        """
        self._consumer.settle(self, self._settlement(frames.RETRY, reason, after_s, wish=wish))

    def reject(self, reason: str) -> None:
        """Never: the message becomes a dead letter with this reason."""
        self._consumer.settle(self, self._settlement(frames.REJECT, reason))

    def _settlement(
        self, outcome: int, note: object, after_s: float | None = None, *, wish: bool = False
    ) -> frames.Settlement:
        return frames.settlement(self.id, outcome, note, after_s, self.generation, wish=wish)


Handler = Callable[[Delivery], Awaitable[str | None]]


class Consumer:
    """Deliveries of one destination, as an async iterator or in batches."""

    def __init__(
        self, session: Session, destination: str, credit: int, consumers: "dict[str, Consumer]"
    ) -> None:
        """It is among the `consumers` of the session, by destination, until it closes."""
        self.destination = destination
        self.credit = credit
        self._session = session
        self._consumers = consumers
        self._ready: deque[Delivery] = deque()
        self._held: dict[str, set[int]] = {}  # ids by generation
        self._settlements: list[frames.Settlement] = []
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        consumers[destination] = self

    @property
    def bus(self) -> str:
        """The name of the store that deliveries come from, "" before the first WELCOME."""
        return self._session.bus

    def widen(self, credit: int) -> None:
        """Hold up to `credit` deliveries from now on."""
        self.credit = credit
        self._session.peer.credit(self.destination, credit)
        self._session.send()

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        while not self._ready:
            await self._wait()
        return self._ready.popleft()

    async def batches(self) -> AsyncIterator[list[Delivery]]:
        """Yield all that has arrived, at least one delivery at a time."""
        while True:
            while not self._ready:
                try:
                    await self._wait()
                except StopAsyncIteration:
                    return
            batch = list(self._ready)
            self._ready.clear()
            yield batch

    def close(self) -> None:
        """Take no more: deliveries not yet looked at return to the router at once."""
        if not self._closed:
            self._closed = True
            self._consumers.pop(self.destination, None)
            self._session.peer.withdraw(self.destination)
            self._session.send()
            for delivery in self._ready:
                delivery.retry(CLOSED_NOTE, 0)
            self._ready.clear()
            self.flush()
            self.wake()

    def settle(self, delivery: Delivery, settlement: frames.Settlement) -> None:
        """Queue one settlement; all of one turn of the loop travel together. Raises RuntimeError
        for a delivery that is settled already."""
        if delivery.settled:
            raise RuntimeError("this delivery is settled already")
        delivery.settled = True
        if held := self._held.get(delivery.generation):
            held.discard(delivery.id)
        if not self._settlements:
            self._session.loop.call_soon(self.flush)
        self._settlements.append(settlement)

    def flush(self) -> None:
        """Send queued settlements now; while the router is away they wait for it."""
        if self._settlements:
            settlements, self._settlements = self._settlements, []
            self._session.peer.settle(settlements)
            self._session.send()

    def deliver(self, deliveries: list[frames.DeliveredMessage]) -> None:
        """Take what the router delivered. What is still held from before a reconnect is skipped:
        its settlement, when it comes, counts for the new session too."""
        ready, generation, held = self._ready, "", self._held.setdefault("", set())
        bus = self._session.bus
        for item in deliveries:
            if item.generation != generation:
                generation = item.generation  # one word for all: it is hashed once
                held = self._held.setdefault(generation, set())
            id = item.delivery
            if id not in held:
                held.add(id)
                ready.append(Delivery(self, id, item.attempt, item.message, generation, bus))
        self.wake()

    def drop_unread(self) -> None:
        """Forget what nobody has looked at yet: the router will deliver it again."""
        for delivery in self._ready:
            self._held[delivery.generation].discard(delivery.id)
        self._held = {word: ids for word, ids in self._held.items() if ids}
        self._ready.clear()

    def wake(self) -> None:
        """Let a waiting reader look: at deliveries, or at the error that ended the session."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._session.raise_if_dead()
        if self._closed:
            raise StopAsyncIteration
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


async def settle_by(
    handler: Handler,
    delivery: Delivery,
    stopped: str = STOPPED_NOTE,
    told: Callable[[BaseException], None] = lambda _: None,
) -> None:
    """Settle a delivery by what its handler returns or raises, of which `told` hears first; who is
    cancelled gives it back with the note `stopped`."""
    try:
        settle_as(delivery, await handler(delivery))
    except asyncio.CancelledError:
        if not delivery.settled:
            delivery.retry(stopped, 0)
        raise
    except BaseException as error:
        # Also what is no Exception, of a library in another language or a plug-in's exit(): it
        # would end the process, which would be handed the same delivery again.
        told(error)
        settle_as(delivery, error)


def settle_as(delivery: Delivery, outcome: object) -> None:
    """Settle by what a handler returned (the note of an ack) or raised, unless it did so itself.

    Of an exception that is neither Retry nor Reject only the kind is told: its text may hold
    personal data.
    """
    if delivery.settled:
        return
    match outcome:
        case Retry():
            try:
                delivery.retry(str(outcome), outcome.after_s, wish=outcome.wish)
            except (TypeError, ValueError):
                delivery.retry(str(outcome))
        case Reject():
            delivery.reject(str(outcome))
        case BaseException():
            delivery.retry(type(outcome).__name__)
        case _:
            delivery.ack(outcome)  # type: ignore[arg-type]  # what is no text is told by its kind
