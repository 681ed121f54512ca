"""What is on disk and what is on its way there: a start, a transaction, and what comes of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from proto import frames
from proto.message import decode_message
from router.core import supply
from router.core.clock import Now
from router.core.delivery import DELAYED, EXPIRED, READY, Delivery
from router.core.generations import Generations
from router.core.output import Batch, Filed, Load, OpenDelivery
from router.core.policy import longest_pause_ms
from router.core.queue import Queue
from router.core.settling import Settling
from router.core.sleepers import ASLEEP

FILE_STEP: Final = 2_000


class Persisting(Settling):
    """From the gathering batch to the disk and back: ACCEPTED, and into the queues."""

    def inherit(
        self, generations: Sequence[tuple[int, str]], totals: Mapping[str, Mapping[str, int]],
        holds: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Take over from earlier starts: which numbers they gave, with their words; by destination
        what they counted, and why an operator holds it back."""
        self.generations = Generations(generations)
        for destination, counts in totals.items():
            self.queue_of(destination).totals.update(counts)
        for destination, reason in holds.items():
            self.queue_of(destination).hold = reason

    def restore(self, filed: Iterable[Filed], recent: list[OpenDelivery], next_n: int,
                next_delivery: int, now: Now, newest_ms: int = 0) -> None:  # fmt: skip
        """Take up what the store holds as open: what is filed stays on the disk until its turn
        comes, the `recent` rest is brought into memory, by its numbers. `newest_ms` (UTC) is when
        the newest message was accepted, 0 if there is none: what the clock is held against."""
        self._clock.begin(newest_ms, now)
        self._next_n = max(self._next_n, next_n)
        self._next_delivery = self._first_delivery = max(self._next_delivery, next_delivery)
        for queue in self.queues.values():
            queue.counted_from = self._first_delivery
        deliveries = [
            supply.delivery_of(row, self.queue_of(row.destination), now.mono_ms)
            for row in sorted(recent, key=lambda row: row.delivery)
        ]
        for run in filed:
            queue = self.queue_of(run.destination)
            queue.open += len(run.deliveries)
            if run.lane >= ASLEEP:
                queue.sleepers.find_on_disk(run.lane - ASLEEP, run.deliveries, run.hashes)
            else:
                queue.spill.find_on_disk(run.lane, run.deliveries, run.hashes)
        for delivery in deliveries:
            queue = self.queues[delivery.destination]
            queue.open += 1
            if supply.is_behind(queue, delivery) and not self._sleeps_until(delivery, now):
                self.out.batch.filed.append(supply.put_out(queue, delivery))
            else:
                queue.resident_bytes[delivery.lane] += delivery.size
                self._enqueue(delivery, now)
        for queue in self.queues.values():
            self._dispatch(queue, now)

    def take_batch(self) -> Batch:
        """Hand the gathered transaction to the store; the next one gathers meanwhile."""
        batch, self.out.batch = self.out.batch, Batch()
        self._writing.append(batch)
        self._file_stragglers(batch)
        batch.frontier = self._frontier()
        return batch

    def _file_stragglers(self, batch: Batch) -> None:
        """Put what has been open for long into the backlog, so that the frontier moves on."""
        before_n = self._next_n - self.frontier_lag_max
        filed: list[Delivery] = []
        for delivery in self.open.values():
            if delivery.n >= before_n or len(filed) == FILE_STEP:
                break
            filed.append(delivery)
        for delivery in filed:
            del self.open[delivery.id]
            self.backlog[delivery.id] = delivery
            delivery.filed = True
            self.queues[delivery.destination].spill.pass_by(delivery.lane, delivery.id)
            batch.filed.append(supply.backlog_row(delivery))

    def _frontier(self) -> int:
        """Return the oldest message that is open without being in the backlog, or not on disk yet.

        Numbers grow, and `open` keeps their order: what is in it came before what is written.
        """
        for delivery in self.open.values():
            return delivery.n
        for batch in self._writing:
            if batch.messages:
                return batch.messages[0][0]
        return self._next_n

    def unsynced(self) -> dict[str, int]:
        """Return how many deliveries of each destination are on their way to the disk."""
        batches = (*self._writing, self.out.batch)
        counts = Counter(d.destination for batch in batches for d in batch.fresh if not d.filed)
        counts.update(row[0] for batch in batches for row in batch.spilled)
        return counts

    def unsynced_bytes(self) -> int:
        """Return how many bytes of messages are on their way to the disk."""
        return sum(batch.size for batch in (*self._writing, self.out.batch))

    def persisted(
        self, batch: Batch, duplicates: dict[int, int], now: Now,
        loaded: list[list[OpenDelivery]] | None = None,
    ) -> None:  # fmt: skip
        """The batch is on disk. `duplicates` are the n of messages that were accepted before,
        `loaded` is what each of its loads brought."""
        touched: dict[Queue, int] = {}  # and how many were accepted for it
        open, queues = self.open, self.queues
        self._writing.remove(batch)
        self.counters["accepted"] += len(batch.messages) - len(duplicates)
        self.counters["duplicates"] += len(duplicates)
        for delivery in batch.fresh:
            queue = queues[delivery.destination]
            accepted = touched.get(queue, 0)
            if (
                delivery.due is None
                and delivery.expires is None
                and not delivery.filed
                and not duplicates
            ):  # nearly all
                touched[queue] = accepted + 1
                open[delivery.id] = delivery
                queue.add(delivery)
                continue
            if duplicates and delivery.n in duplicates:
                queue.open -= 1
                queue.count(delivery.sender, -1)
                queue.resident_bytes[delivery.lane] -= delivery.size
                continue
            if delivery.filed:
                touched[queue] = accepted
                self._recalled.discard(delivery.id)
                self._enqueue(delivery, now)
                continue
            touched[queue] = accepted + 1
            self._enqueue(delivery, now)
        self._recalled.difference_update(row[0] for row in batch.dropped)
        if batch.spilled:
            self._note_spilled(batch, duplicates, touched)
        for load, rows in zip(batch.loads, loaded or (), strict=False):
            queue = queues[load.destination]
            touched.setdefault(queue, 0)
            for delivery in self._take_up(queue, load, rows, now):
                self._enqueue(delivery, now)
        self._send_accepted(batch.accepts)
        if self.observed:
            self._observe_accepted(batch, duplicates)
        for queue, accepted in touched.items():
            queue.totals["accepted"] += accepted
            self._dispatch(queue, now)

    def _note_spilled(
        self, batch: Batch, duplicates: dict[int, int], touched: dict[Queue, int]
    ) -> None:
        sources = {row[0]: row[1] for row in batch.messages} if duplicates else {}
        for name, lane, id, n, until in batch.spilled:
            queue = self.queues[name]
            accepted = touched.get(queue, 0)
            is_repeat = bool(duplicates) and n in duplicates
            if is_repeat:
                queue.open -= 1
                queue.count(supply.sender_of(sources[n], lane % ASLEEP), -1)
            touched[queue] = accepted if is_repeat else accepted + 1
            if lane >= ASLEEP:
                if not is_repeat:
                    queue.sleepers.add(lane - ASLEEP, id, until)
            elif is_repeat:
                queue.spill.read(lane, id)
            else:
                queue.spill.synced[lane] = id

    def _take_up(
        self, queue: Queue, load: Load, rows: list[OpenDelivery], now: Now
    ) -> list[Delivery]:
        """Bring what was read into memory; return what can be queued now, in order."""
        if load.wakes:
            return supply.wake(queue, load, rows, now.mono_ms)
        ready, loads = supply.take_up(queue, load, rows, now.mono_ms)
        self.out.batch.loads += loads
        return ready

    def _send_accepted(self, accepts: list[tuple[bytes, int]]) -> None:
        by_peer: dict[bytes, list[int]] = {}
        for peer, number in accepts:
            by_peer.setdefault(peer, []).append(number)
        for peer, numbers in by_peer.items():
            self._send(peer, frames.ACCEPTED, frames.Accepted(numbers))

    def _observe_accepted(self, batch: Batch, duplicates: dict[int, int]) -> None:
        for n, source, id, subject, *_, raw in batch.messages:
            if n not in duplicates:
                message = decode_message(raw)
                event: dict[str, object] = {"source": source, "id": id, "subject": subject}
                event |= {"type": message.type, "priority": message.priority}
                self._observe("accepted", event)

    def _enqueue(self, delivery: Delivery, now: Now) -> None:
        queue = self.queues[delivery.destination]
        if until := self._sleeps_until(delivery, now):
            supply.put_to_sleep(queue, delivery, until, self.out.batch)
            return
        (self.backlog if delivery.filed else self.open)[delivery.id] = delivery
        if self._is_over(delivery, now):  # on its way to the disk, or while it was there
            self._end(delivery, EXPIRED, None, now)
            return
        self._set_expiry(delivery, now)
        if delivery.due is None:
            queue.add(delivery)
        elif delivery.attempts:  # a retry: it is its subject's head already
            queue.add(delivery)
            if delivery.state is READY:
                # The clock may have been another when it was put off.
                longest_ms = longest_pause_ms(queue.settings.backoff)
                self._retry_at(delivery, min(delivery.due - now.wall_ms, longest_ms), now)
        elif (wait_ms := delivery.due - self._clock.sure_ms(now)) > 0:
            delivery.state = DELAYED
            self._set_timer(wait_ms, "due", delivery.id, now)
        else:
            queue.add(delivery)

    def _sleeps_until(self, delivery: Delivery, now: Now) -> int | None:
        """Return until when (ms UTC) a new one is left to the disk, None when it is not."""
        if delivery.due is None or delivery.attempts or self._is_over(delivery, now):
            return None
        return supply.wakes_at(delivery.due, delivery.expires, self._clock.sure_ms(now))
