"""Time: what is due, what has run out, and who has fallen silent."""

from proto import frames
from proto.errors import Code
from router.core.admitting import HEARTBEAT_MS, SILENT, Admitting
from router.core.clock import Now
from router.core.delivery import DELAYED, EXPIRED, IN_FLIGHT, RETRYING, Delivery
from router.core.queue import Queue
from router.core.timers import Kind


class Timing(Admitting):
    """Timers, the clock, and a look at the sessions once a second."""

    def is_clock_doubted(self, now: Now) -> bool:
        """Whether the wall clock has parted from its course and is not believed yet."""
        return self._clock.doubt_ends_ms(now) is not None

    def next_timer_ms(self) -> int | None:
        """Return the monotonic time of the earliest timer."""
        return self._timers.next_ms()

    def tick(self, now: Now) -> None:
        """Fire what is due, and look after sessions that have fallen silent."""
        if self._clock.look(now):
            self._set_anew(now)
        touched: dict[str, Queue] = {}
        for at_ms, kind, id in self._timers.take_due(now.mono_ms):
            if kind == "answer":
                if question := self._questions.close(id):
                    self._answer(question, Code.TIMEOUT, "no answer in time")
            elif kind == "wake":
                for queue in self.queues.values():
                    if queue.wake_ms == at_ms:
                        queue.wake_ms = None
                        touched[queue.name] = queue
            elif delivery := self.find(id):
                name = delivery.destination
                touched[name] = self.queues[name]
                self._fire(delivery, kind, now)
        for queue in touched.values():
            self._dispatch(queue, now)

    def _fire(self, delivery: Delivery, kind: Kind, now: Now) -> None:
        queue = self.queues[delivery.destination]
        if kind == "expire":
            delivery.timed = False
            if not self._is_over(delivery, now):
                self._set_expiry(delivery, now)
            # In a consumer's hands it may have had its effect: the settlement decides.
            elif delivery.state is not IN_FLIGHT:
                self._end(delivery, EXPIRED, None, now)
        elif delivery.state is DELAYED:
            queue.add(delivery)
        elif delivery.state is RETRYING and delivery.wake_ms <= now.mono_ms:
            queue.retrying -= 1
            queue.again(delivery)

    def _set_anew(self, now: Now) -> None:
        """The clock has stepped: set those timers anew that stand for a time of the day. What waits
        for a retry or is due in seconds is waited for by the clock that does not step."""
        self._timers.keep(lambda _, kind, __: kind in ("due", "answer"))
        for delivery in (*self.open.values(), *self.backlog.values()):
            if delivery.timed:
                delivery.timed = False
                self._set_expiry(delivery, now)
        for queue in self.queues.values():
            if queue.sleepers.total:
                queue.wake_ms = now.mono_ms
                self._set_timer(0, "wake", queue.number, now)

    def beat(self, now: Now) -> None:
        """Ping silent sessions and end those that stay silent, and see whether the clock has
        stepped; once a second is enough."""
        self.tick(now)
        silent = []
        for session in self.sessions.values():
            silent_ms = now.mono_ms - session.heard_ms
            if silent_ms >= self.settings.bus.session_timeout_ms:
                silent.append(session)
            elif silent_ms >= HEARTBEAT_MS:
                self._send(session.peer, frames.PING, frames.Ping())
        self._end_together(silent, SILENT, now, died=True)
        for queue in self.queues.values():
            if queue.on_trial:
                queue.acquit(now.mono_ms - self._trial_ms())
                self._dispatch(queue, now)
