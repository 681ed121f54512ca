"""Settling: how a delivery ends, and when it comes again."""

from typing import Final

from proto import frames
from proto.errors import Code
from proto.wording import text
from router.core import supply
from router.core.delivering import Delivering
from router.core.delivery import (
    DEAD,
    EXPIRED,
    IN_FLIGHT,
    READY,
    RETRYING,
    SETTLED,
    Delivery,
    State,
)
from router.core.policy import given_up, pauses_ms
from router.core.queue import Holding, Queue
from router.core.session import Session
from router.core.state import Now

_WORDS: Final = {SETTLED: "settled", DEAD: "dead", EXPIRED: "expired"}


class Settling(Delivering):
    """SETTLE, and what comes of it."""

    def _settle(self, session: Session, settlements: list[frames.Settlement], now: Now) -> None:
        touched: dict[str, Queue] = {}
        foreign = 0
        for settlement in settlements:
            delivery = self.open.get(settlement.delivery) or self.backlog.get(settlement.delivery)
            if delivery is None:
                continue  # settled before: a repeat does no harm
            queue = delivery.queue
            holder = delivery.holder
            if holder is not None and holder.session is not session:
                foreign += 1
                continue
            if holder is None and not self._may_settle_late(session, delivery, settlement):
                continue
            touched[queue.name] = queue
            if settlement.outcome == frames.ACK:
                session.acked += 1
                self._end(delivery, SETTLED, settlement.note, now)
                if queue.asked:
                    self._hasten(queue, now)
            elif settlement.outcome == frames.RETRY:
                self._retry(delivery, settlement, now)
            else:
                note = settlement.note or text("router.dead_rejected")
                self._end(delivery, DEAD, note, now)
        if foreign:
            sentence = f"{foreign} of these deliveries are in another session's hands"
            self._error(session.peer, Code.NOT_YOURS, sentence, "SETTLE")
        for queue in touched.values():
            self._dispatch(queue, now)

    def _may_settle_late(
        self, session: Session, delivery: Delivery, settlement: frames.Settlement
    ) -> bool:
        """An ack that comes after its session was lost saves the partner a repeat."""
        return (
            settlement.outcome == frames.ACK
            and delivery.state in (READY, RETRYING)
            and session.rights.consume.match(delivery.queue.name)
        )

    def _end(self, delivery: Delivery, state: State, note: str | None, now: Now) -> None:
        queue = delivery.queue
        if delivery.state is IN_FLIGHT:
            queue.release(delivery)
        elif delivery.state is RETRYING:
            queue.retrying -= 1
        delivery.state = state
        word = _WORDS[state]
        queue.totals[word] += 1
        self.counters[word] += 1
        self.out.batch.outcomes.append(
            (delivery.id, delivery.n, queue.name, state, delivery.attempts,
             delivery.delivered_at, now.wall_ms, note)
        )  # fmt: skip
        if self.observed:
            self._observe_delivery(word, delivery, note)
        if delivery.filed:
            del self.backlog[delivery.id]
            self.out.batch.unfiled.append(supply.backlog_row(delivery))
        else:
            del self.open[delivery.id]
        queue.finish(delivery)

    def _retry(self, delivery: Delivery, told: frames.Settlement, now: Now) -> None:
        queue, note = delivery.queue, told.note
        backoff = queue.settings.backoff
        reason = given_up(backoff, delivery.attempts, now.wall_ms - delivery.accepted_at)
        if delivery.expires is not None and delivery.expires <= now.wall_ms:
            self._end(delivery, EXPIRED, note, now)
        elif reason is not None:
            self._end(delivery, DEAD, f"{reason}: {note}" if note else reason, now)
        else:
            after_ms, own_ms = pauses_ms(backoff, delivery.attempts, told, self._random)
            if after_ms > own_ms:
                queue.asked[delivery.id] = now.mono_ms + own_ms
            if delivery.state is IN_FLIGHT:
                queue.release(delivery)
            self.counters["retried"] += 1
            delivery.due = now.wall_ms + after_ms
            self.out.batch.attempts.append(
                (delivery.id, delivery.attempts, now.wall_ms, "retry", note, delivery.due)
            )
            if self.observed:
                self._observe_delivery("retry", delivery, note)
            self._set_expiry(delivery, now)  # it may have fired in vain, and the clock gone back
            self._retry_at(delivery, after_ms, now)

    def _retry_at(self, delivery: Delivery, after_ms: int, now: Now) -> None:
        if after_ms <= 0:
            delivery.queue.again(delivery)
            return
        delivery.state = RETRYING
        delivery.queue.retrying += 1
        self._set_timer(after_ms, "due", delivery.id, now)

    def _hasten(self, queue: Queue, now: Now) -> None:
        """The partner takes something: what it put off waits no longer than by our own policy."""
        for id, rest_ms in queue.take_asked(now.mono_ms):
            if delivery := self.find(id):
                delivery.due = now.wall_ms + rest_ms
                self._set_timer(rest_ms, "due", id, now)

    def _vanished(self, delivery: Delivery, now: Now) -> None:
        """Its consumer is gone: it may or may not have reached the partner, so it goes again."""
        delivery.queue.release(delivery)
        backoff = delivery.queue.settings.backoff
        if delivery.expires is not None and delivery.expires <= now.wall_ms:
            return self._end(delivery, EXPIRED, None, now)  # its timer has fired in vain
        if delivery.attempts >= backoff.attempts_max:
            return self._end(delivery, DEAD, text("router.dead_vanished"), now)
        self.out.batch.attempts.append(
            (delivery.id, delivery.attempts, now.wall_ms, "vanished", None, None)
        )
        self._set_expiry(delivery, now)
        return delivery.queue.again(delivery)

    def _let_go(self, holding: Holding, now: Now) -> None:
        holding.queue.holdings.remove(holding)
        for delivery in reversed(list(holding.held.values())):
            self._vanished(delivery, now)
