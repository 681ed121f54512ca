"""Settling: how a delivery ends, and when it comes again."""

from collections.abc import Collection
from typing import Final

from proto import frames
from proto.errors import Code
from proto.note import coded
from router.core import supply
from router.core.clock import Now
from router.core.delivering import Delivering
from router.core.delivery import (
    DEAD,
    EXPIRED,
    IN_FLIGHT,
    READY,
    RETRYING,
    SETTLED,
    Delivery,
    Holding,
    State,
)
from router.core.policy import SUSPECT_MIN, VANISHED_QUICK_MAX, given_up, next_delay_ms, pauses_ms
from router.core.queue import Queue
from router.core.session import Session

ACK: Final = frames.ACK
RETURNED: Final = "returned"
VANISHED: Final = "vanished"
ALONE: Final = "vanished_alone"
REJECTED: Final = coded("bus.rejected")
VANISHED_EACH_TIME: Final = coded("bus.vanished")
_WORDS: Final = {SETTLED: "settled", DEAD: "dead", EXPIRED: "expired"}


class Settling(Delivering):
    """SETTLE, and what comes of it."""

    def _settle(self, session: Session, settlements: list[frames.Settlement], now: Now) -> None:
        touched: dict[Queue, int] = {}  # and how many it acknowledges
        foreign, peer = 0, session.peer
        open, backlog, queues, generations = self.open, self.backlog, self.queues, self.generations
        newest_first, newest = generations.newest_first, generations.newest
        for settlement in settlements:
            id, word = settlement.delivery, settlement.generation
            delivery = open.get(id) or backlog.get(id)
            if delivery is None:
                continue  # settled before: a repeat does no harm
            if not (word == newest and id >= newest_first) and not generations.gave(id, word):
                continue
            queue = queues[delivery.destination]
            holder = delivery.holder
            if holder is not None and holder.peer != peer:
                foreign += 1
                continue
            if holder is None and not self._may_settle_late(session, delivery, settlement):
                continue
            acked = touched.get(queue, 0)
            if settlement.outcome == ACK:
                touched[queue] = acked + 1
                if holder is not None:  # as queue.release does: this is the hot path
                    del holder.held[id]
                    if holder.suspect is delivery:
                        holder.suspect = None
                    delivery.holder = None
                    queue.in_flight -= 1
                    delivery.state = SETTLED
                self._finish(delivery, queue, SETTLED, settlement.note, now)
                if queue.asked:
                    self._hasten(queue, now)
                continue
            touched[queue] = acked
            if settlement.outcome == frames.RETRY:
                self._retry(delivery, settlement, now)
            else:
                note = settlement.note or REJECTED
                self._end(delivery, DEAD, note, now)
        for queue, acked in touched.items():
            queue.proofs += 1
            session.acked += acked
            self._count(queue, SETTLED, acked)
        if foreign:
            sentence = f"{foreign} of these deliveries are in another session's hands"
            self._error(session.peer, Code.NOT_YOURS, sentence, "SETTLE")
        for queue in touched:
            self._dispatch(queue, now)

    def _may_settle_late(
        self, session: Session, delivery: Delivery, settlement: frames.Settlement
    ) -> bool:
        """An ack that comes after its session was lost saves the partner a repeat."""
        return (
            settlement.outcome == frames.ACK
            and delivery.state in (READY, RETRYING)
            # What nobody was given since it came cannot have had its effect.
            and (delivery.attempts > 0 or delivery.id < self.generations.newest_first)
            and session.rights.consume.match(delivery.destination)
        )

    def _end(self, delivery: Delivery, state: State, note: str | None, now: Now) -> None:
        queue = self.queues[delivery.destination]
        self._count(queue, state, 1)
        self._finish(delivery, queue, state, note, now)

    def _count(self, queue: Queue, state: State, count: int) -> None:
        word = _WORDS[state]
        queue.totals[word] += count
        queue.ended[word] += count
        self.counters[word] += count

    def _finish(
        self, delivery: Delivery, queue: Queue, state: State, note: str | None, now: Now
    ) -> None:
        """Make a delivery final; whoever calls counts it."""
        if delivery.state is IN_FLIGHT:
            queue.release(delivery)
        elif delivery.state is RETRYING:
            queue.retrying -= 1
        delivery.state = state
        self.out.batch.outcomes.append(
            (delivery.id, delivery.n, queue.name, state, delivery.attempts,
             delivery.delivered_at, now.wall_ms, note)
        )  # fmt: skip
        if self.observed:
            self._observe_delivery(_WORDS[state], delivery, note)
        if delivery.filed:
            del self.backlog[delivery.id]
            self.out.batch.unfiled.append(supply.backlog_row(delivery))
        else:
            del self.open[delivery.id]
        queue.finish(delivery)

    def _retry(self, delivery: Delivery, told: frames.Settlement, now: Now) -> None:
        queue, note = self.queues[delivery.destination], told.note
        backoff = queue.settings.backoff
        # By the clock that does not step: no wrong date makes anything old.
        reason = given_up(backoff, delivery.attempts, now.mono_ms - delivery.born_ms)
        if self._is_over(delivery, now):
            self._end(delivery, EXPIRED, note, now)
        elif reason is not None:
            self._end(delivery, DEAD, f"{reason}: {note}" if note else reason, now)
        else:
            delivery.acquit()  # its consumer lives, and speaks of it
            after_ms, own_ms = pauses_ms(backoff, delivery.attempts, told, self._random)
            if after_ms > own_ms:
                queue.asked[delivery.id] = now.mono_ms + own_ms
            if delivery.state is IN_FLIGHT:
                queue.release(delivery)
            self.counters["retried"] += 1
            delivery.due = now.wall_ms + after_ms
            self.out.batch.attempts.append(
                (
                    delivery.id,
                    delivery.attempts,
                    now.wall_ms,
                    "retry",
                    note,
                    delivery.due,
                    now.mono_ms - delivery.born_ms,
                )
            )
            if self.observed:
                self._observe_delivery("retry", delivery, note)
            self._set_expiry(delivery, now)  # it may have fired in vain, and the clock gone back
            self._retry_at(delivery, after_ms, now)

    def _retry_at(self, delivery: Delivery, after_ms: int, now: Now) -> None:
        queue = self.queues[delivery.destination]
        if after_ms <= 0:
            queue.again(delivery)
            return
        delivery.state = RETRYING
        queue.retrying += 1
        delivery.wake_ms = now.mono_ms + after_ms
        self._set_timer(after_ms, "due", delivery.id, now)

    def _hasten(self, queue: Queue, now: Now) -> None:
        """The partner takes something: what it put off waits no longer than by our own policy."""
        for id, rest_ms in queue.take_asked(now.mono_ms):
            delivery = self.find(id)
            if delivery is not None and delivery.state is RETRYING:
                delivery.due = now.wall_ms + rest_ms
                delivery.wake_ms = now.mono_ms + rest_ms
                self._set_timer(rest_ms, "due", id, now)

    def _returned(self, delivery: Delivery, word: str, now: Now) -> None:
        """Its consumer is gone: it may or may not have reached the partner, so it goes again.
        `word` says how: `returned` (on purpose, or after long), `vanished` or `vanished_alone`."""
        queue = self.queues[delivery.destination]
        queue.release(delivery)
        backoff = queue.settings.backoff
        if self._is_over(delivery, now):
            return self._end(delivery, EXPIRED, None, now)  # its timer has fired in vain
        if delivery.attempts >= backoff.attempts_max:
            return self._end(delivery, DEAD, VANISHED_EACH_TIME, now)
        if word == ALONE and queue.proofs == delivery.proof:
            word = VANISHED  # a consumer that dies at each start, whatever it gets, proves nothing
        after_ms = 0
        if word != RETURNED:
            delivery.vanished += 1
            delivery.suspect = delivery.vanished >= SUSPECT_MIN
            if word == ALONE:
                delivery.lonely, delivery.proof = delivery.lonely + 1, queue.proofs
            if delivery.lonely >= backoff.deaths_max:
                note = coded("bus.poison", count=delivery.lonely)
                return self._end(delivery, DEAD, note, now)
            if delivery.vanished > VANISHED_QUICK_MAX:
                tries = delivery.vanished - VANISHED_QUICK_MAX
                after_ms = next_delay_ms(backoff, tries, self._random)
        due = delivery.due = now.wall_ms + after_ms if after_ms else None
        self.out.batch.attempts.append(
            (
                delivery.id,
                delivery.attempts,
                now.wall_ms,
                word,
                None,
                due,
                now.mono_ms - delivery.born_ms,
            )
        )
        self._set_expiry(delivery, now)
        return self._retry_at(delivery, after_ms, now)

    def _let_go(self, holding: Holding, now: Now, accused: Collection[int] = ()) -> None:
        """Take back what a session holds of a queue; of the `accused` it may have died."""
        self.queues[holding.destination].holdings.remove(holding)
        word = ALONE if len(accused) == 1 else VANISHED
        for delivery in reversed(list(holding.held.values())):
            self._returned(delivery, word if delivery.id in accused else RETURNED, now)

    def _accused(self, session: Session, spared: Collection[int]) -> set[int]:
        """Return what a session may have died of: what it had not got long before it was heard for
        the last time, without the `spared` that never reached it."""
        before_ms = session.heard_ms - self._trial_ms()
        holdings = session.holdings.values()
        held = (one for holding in holdings for one in holding.held.values())
        return {one.id for one in held if one.wake_ms > before_ms and one.id not in spared}
