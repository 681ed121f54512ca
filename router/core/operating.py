"""What an operator may do: open dead letters again, give them up, hold a destination back."""

from router.core import supply
from router.core.clock import Now
from router.core.delivery import RETRYING
from router.core.output import OpenDelivery
from router.core.settling import Settling


class Operating(Settling):
    """The verbs of operators; each is on disk with its batch."""

    def replay(self, dead: list[OpenDelivery], reason: str, now: Now) -> int:
        """Open dead letters again, in the order given, under their old delivery ids and with all
        attempts before them. Returns how many; those already on their way are passed over."""
        batch = self.out.batch
        count = 0
        for row in dead:
            queue = self.queues.get(row.destination)
            if queue is None or row.delivery in self._recalled or self.find(row.delivery):
                continue
            delivery = supply.delivery_of(row, queue, now.mono_ms)
            delivery.filed = True
            if not delivery.sender:
                delivery.sender = supply.sender_of(supply.source_of(row), delivery.lane)
            queue.count(delivery.sender, 1)
            delivery.acquit()
            delivery.born_ms = now.mono_ms
            queue.spill.pass_by(delivery.lane, delivery.id)
            queue.resident_bytes[delivery.lane] += delivery.size
            delivery.attempts, delivery.accepted_at = 0, now.wall_ms  # both begin anew
            batch.reopened.append((row.delivery, queue.name))
            batch.filed.append(supply.backlog_row(delivery))
            batch.attempts.append((row.delivery, 0, now.wall_ms, "replayed", reason, None, 0))
            batch.fresh.append(delivery)
            self._recalled.add(row.delivery)
            queue.open += 1
            queue.totals["dead"] -= 1
            count += 1
        self.counters["replayed"] += count
        return count

    def drop(self, dead: list[tuple[int, str]], reason: str) -> int:
        """Give dead letters (delivery, destination) up for good; the reason stays with them."""
        count = 0
        for delivery, destination in dead:
            queue = self.queues.get(destination)
            if queue is None or delivery in self._recalled or self.find(delivery):
                continue
            self.out.batch.dropped.append((delivery, destination, reason))
            self._recalled.add(delivery)
            queue.totals["dead"] -= 1
            queue.totals["dropped"] += 1
            count += 1
        self.counters["dropped"] += count
        return count

    def try_now(self, destination: str, subject: str | None, now: Now) -> int | None:
        """Try again at once what waits for its next attempt, of one subject or of all. Returns how
        many, None when there is no such destination."""
        queue = self.queues.get(destination)
        if queue is None:
            return None
        waiting = [
            delivery
            for delivery in (*self.open.values(), *self.backlog.values())
            if delivery.destination == destination
            and delivery.state is RETRYING
            and (subject is None or delivery.subject == subject)
        ]
        for delivery in sorted(waiting, key=lambda delivery: -delivery.id):
            queue.retrying -= 1
            queue.again(delivery)
        self._dispatch(queue, now)
        return len(waiting)

    def hold(self, destination: str, reason: str | None, now: Now) -> bool:
        """Deliver nothing to a destination until it is released (`reason` None); it still
        accepts. Returns False when there is no such destination."""
        queue = self.queues.get(destination)
        if queue is None:
            return False
        queue.hold = reason
        self.out.batch.holds[destination] = reason
        self._dispatch(queue, now)
        return True
