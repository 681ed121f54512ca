"""Deliveries of one destination, as many at once as the partner can bear.

While the partner's breaker is open nothing is taken from the router, so that waiting costs no
attempts; when its rest is over one delivery goes as a probe, and only its success lets the others
follow. What has failed before is not the probe while there is anything else: it may be the one
thing that the partner cannot take.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from connectors.runtime.bus.connector import Connector
from connectors.runtime.log import LOG
from connectors.runtime.partner.breaker import Breaker, BreakerSettings
from connectors.runtime.partner.turns import RANK
from connectors.runtime.words import id_of, reason_of
from proto import clock
from proto.client import BusClient, Consumer, Delivery, Handler, Reject, Retry, settle_by
from proto.note import coded
from proto.wording import text

LOOK_S: Final = 0.25  # how long another delivery is waited for


class Intake:
    """Takes deliveries of `destination`, and settles them by what `handle` did."""

    def __init__(
        self, bus: BusClient, destination: str, credit: int, handle: Handler, breaker: Breaker
    ) -> None:
        self._bus = bus
        self._destination = destination
        self._credit = credit
        self._handle = handle
        self._breaker = breaker
        self._consumer: Consumer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @classmethod
    def of(cls, connector: Connector) -> "Intake":
        """Return what brings `connector` its deliveries."""
        partner = getattr(connector, "partner", None) if connector.waits_for_partner else None
        breaker = Breaker(BreakerSettings()) if partner is None else partner.breaker
        credit = connector.settings.credit
        intake = cls(connector.bus, connector.destination, credit, connector.handle, breaker)
        if partner is not None:
            partner.on_change = intake.refresh
        return intake

    async def run(self) -> None:
        """Take deliveries until `stop`. Raises BusError when the session has ended for good."""
        while not self._stopping:
            wait_s = self._breaker.wait_s(clock.monotonic())
            if wait_s:
                await clock.sleep(min(wait_s, 0.5))
                continue
            await (self._consume() if self._breaker.closed else self._probe())

    async def _consume(self) -> None:
        with self._consuming(self._credit) as consumer:
            async for delivery in consumer:
                self._begin(delivery)

    async def _probe(self) -> None:
        passed_by: list[Delivery] = []
        try:
            with self._consuming(1) as consumer:
                probe = await self._probe_of(consumer, passed_by)
            if probe is not None:
                await asyncio.wait({self._begin(probe)})
            if self._breaker.closed and not self._stopping:
                while passed_by:
                    self._begin(passed_by.pop(0))
        finally:
            for delivery in passed_by:
                # Long enough for others to come to their turn; the first success wakes them.
                after_s = 0.0 if self._stopping else self._breaker.settings.open_max_s
                delivery.retry(coded("connector.passed_by"), after_s, wish=bool(after_s))

    async def _probe_of(self, consumer: Consumer, passed_by: list[Delivery]) -> Delivery | None:
        """Return a delivery that has not failed before; one that has when no other comes; None
        when we are to take nothing more."""
        while len(passed_by) < self._credit:
            try:
                async with asyncio.timeout(LOOK_S if passed_by else None):
                    delivery = await anext(consumer)
            except TimeoutError:
                break
            except StopAsyncIteration:
                return None
            if not self._breaker.is_suspect(delivery.key):
                return delivery
            passed_by.append(delivery)
            consumer.widen(len(passed_by) + 1)
        return passed_by.pop(0)

    @contextlib.contextmanager
    def _consuming(self, credit: int) -> Iterator[Consumer]:
        consumer = self._bus.consume(self._destination, credit=credit)
        self._consumer = consumer
        try:
            yield consumer
        finally:
            self._consumer = None
            consumer.close()

    def _begin(self, delivery: Delivery) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._settle(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def refresh(self) -> None:
        """The breaker opened or closed: come back with the credit that fits."""
        if self._consumer is not None:
            self._consumer.close()

    async def stop(self, within_s: float) -> None:
        """Take no more, let what is under way end, give back what does not end in time."""
        self._stopping = True
        self.refresh()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*late, return_exceptions=True)

    async def _settle(self, delivery: Delivery) -> None:
        RANK.set(1 + delivery.message.priority)
        await settle(delivery, self._handle)


async def settle(delivery: Delivery, handle: Handler) -> None:
    """Settle by what `handle` does, and log what is not as it should be."""

    def told(error: BaseException) -> None:
        id = id_of(delivery.message.id)
        if isinstance(error, Reject):
            LOG.warning(text("connector.rejected", id=id, reason=reason_of(error)))
        elif not isinstance(error, Retry):
            # Its text may hold personal data: only the kind of mistake is told.
            LOG.error(text("connector.mistake", id=id, kind=type(error).__name__))

    await settle_by(handle, delivery, coded("connector.stopped"), told)
