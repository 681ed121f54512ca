"""Delivering: what is ready goes to consumers with credit."""

from typing import Final

import msgspec

from proto import frames
from proto.errors import Code
from router.core import supply
from router.core.clock import Now
from router.core.delivery import Delivery, Holding
from router.core.queue import Queue
from router.core.session import Session
from router.core.state import CoreState

DELIVER_LENGTH_MAX: Final = 512
DELIVER_BYTES_MAX: Final = 1024 * 1024
_DeliveredRaw, _Raw = frames.DeliveredRaw, msgspec.Raw
TRIAL_FACTOR: Final = 2  # times the session timeout: who lives so long with it does not die of it


class Delivering(CoreState):
    """CREDIT and DELIVER."""

    def _credit(self, session: Session, credit: frames.Credit, now: Now) -> None:
        destination = credit.destination
        queue = self.queues.get(destination)
        if queue is None:
            session.want(credit)
            sentence = "no such destination"
            return self._error(session.peer, Code.UNKNOWN_DESTINATION, sentence, "CREDIT")
        if not session.rights.consume.match(destination):
            session.want(credit)
            sentence = f"{session.name} may not consume {destination}"
            return self._error(session.peer, Code.NOT_PERMITTED, sentence, "CREDIT")
        session.wanted.pop(destination, None)
        holding = session.holdings.get(destination)
        if holding is None:
            holding = Holding(session.peer, destination, session.allowance)
            session.holdings[destination] = holding
            queue.holdings.append(holding)
        holding.window, holding.serves = credit.window, credit.serves
        self._dispatch(queue, now)
        return None

    def _trial_ms(self) -> int:
        """Return after what time a consumer that still lives has outlived what it got."""
        return TRIAL_FACTOR * self.settings.bus.session_timeout_ms

    def _dispatch(self, queue: Queue, now: Now) -> None:
        for holding, deliveries in queue.take(now.mono_ms, self._trial_ms()):
            self.counters["delivered"] += len(deliveries)
            self._send_deliveries(holding, deliveries, now.wall_ms)
        if queue.spill.total or queue.sleepers.total:
            self.out.batch.loads += supply.wanted(queue, self._clock.sure_ms(now))
            self._arm(queue, now)

    def _send_deliveries(self, holding: Holding, deliveries: list[Delivery], wall_ms: int) -> None:
        group: list[frames.DeliveredRaw] = []
        size = 0
        newest_first, newest = self.generations.newest_first, self.generations.newest
        observed = self.observed
        projections = self._projections.get(holding.destination)
        for delivery in deliveries:
            id, raw = delivery.id, delivery.raw
            if projections is not None:
                raw = projections.raw(raw)
            delivery.delivered_at = wall_ms
            word = newest if id >= newest_first else self.generations.of(id)
            group.append(_DeliveredRaw(id, delivery.attempts, _Raw(raw), word))
            size += len(raw)
            if len(group) >= DELIVER_LENGTH_MAX or size >= DELIVER_BYTES_MAX:
                self._send_group(holding, group)
                group, size = [], 0
            if observed:
                self._observe_delivery("delivered", delivery, None)
        if group:
            self._send_group(holding, group)

    def _send_group(self, holding: Holding, group: list[frames.DeliveredRaw]) -> None:
        payload = frames.DeliverRaw(holding.destination, group)
        self._send(holding.peer, frames.DELIVER, payload)
