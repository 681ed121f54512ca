"""What the parts of the core share: its state, the way out, and its timers."""

from random import Random
from typing import Final

from proto import frames
from router.core.clock import Clock, Now
from router.core.delivery import Delivery
from router.core.generations import Generations
from router.core.output import Batch, Output
from router.core.permission import Rights
from router.core.projection import Projections
from router.core.questions import Questions
from router.core.queue import Queue
from router.core.routing import Routes
from router.core.session import Session
from router.core.timers import Kind, Timers
from router.settings import Destination, Settings

STALE_TIMERS_MIN: Final = 4096
FRONTIER_LAG_MAX: Final = 50_000


class CoreState:
    """The state; what the verbs do to it is told in the modules that stand on this one.

    Up to thirty attributes of an object CPython finds by their place, beyond that it has to search
    for each of them at each use: there is a test that this one and a queue have no more.
    """

    settings: Settings
    frontier_lag_max = FRONTIER_LAG_MAX  # messages: what a start has to look through
    _routes: Routes
    _projections: dict[str, Projections]
    _rights: dict[str, Rights]

    def __init__(self, bus: str, epoch: int, random: Random) -> None:
        """`bus` names the store, `epoch` counts the router's starts on it."""
        self.bus = bus
        self.epoch = epoch
        self.generations = Generations()
        self.out = Output()
        self.sessions: dict[bytes, Session] = {}
        self.left: dict[str, int] = {}  # name -> ms UTC of the newest end of a session of it
        self.queues: dict[str, Queue] = {}
        self.open: dict[int, Delivery] = {}  # without those in the backlog, in order of acceptance
        self.backlog: dict[int, Delivery] = {}
        self.names: dict[bytes, str] = {}  # public key -> name
        self.store_full = False
        self.room_bytes = (
            2**62
        )  # of the disk, for what may be accepted before it is looked at again
        self.urgent_bytes = 0  # besides, for emergencies
        self.observed = False
        self.faults = 0  # ever: ERRORs, and frames with messages refused for good
        self.supply_bytes = 2**62  # of deliveries to a session, before it has read some
        self.counters = dict.fromkeys(
            ("accepted", "refused", "duplicates", "delivered", "settled", "retried", "dead",
             "expired", "replayed", "dropped", "late_replies"), 0,
        )  # fmt: skip
        self._writing: list[Batch] = []  # taken, and not yet known to be on disk
        self._recalled: set[int] = set()  # dead letters replayed or dropped, not yet on disk
        self._clock = Clock()
        self._random = random
        self._next_n = 1
        self._next_delivery = 1
        self._first_delivery = 1  # of this start
        self._timers = Timers()
        self._questions = Questions()

    @property
    def body_bytes_max(self) -> int:
        """Return how many bytes the body of a message may have."""
        return self.settings.bus.body_bytes_max

    def add_queue(self, name: str, destination: Destination) -> Queue:
        """Make a destination known."""
        queue = self.queues[name] = Queue(name, destination, len(self.queues))
        queue.counted_from = self._first_delivery
        return queue

    def queue_of(self, name: str) -> Queue:
        """Return a queue; one whose destination was taken out of the configuration is kept."""
        return self.queues.get(name) or self.add_queue(name, Destination())

    def find(self, id: int) -> Delivery | None:
        """Return an open delivery that is in memory."""
        return self.open.get(id) or self.backlog.get(id)

    def allow_unread(self, supply_bytes: int) -> None:
        """Bound what a session is sent of deliveries before it has read some; of new ones."""
        self.supply_bytes = supply_bytes

    def allow_room(self, room_bytes: int, urgent_bytes: int, *, is_full: bool) -> None:
        """Say how many bytes may be accepted until this is said again, how many besides by
        emergencies alone, and whether the disk has no room for anything else."""
        self.room_bytes, self.urgent_bytes, self.store_full = room_bytes, urgent_bytes, is_full

    def watch(self, watched: bool) -> None:
        """Make events, or make none: whether anybody is there to see them."""
        self.observed = watched

    # -- timers -----------------------------------------------------------------------------------

    def _set_expiry(self, delivery: Delivery, now: Now) -> None:
        """See to it that a delivery with an end to its time has a timer, and one only."""
        if delivery.expires is not None and not delivery.timed:
            delivery.timed = True
            self._set_timer(delivery.expires - self._clock.sure_ms(now), "expire", delivery.id, now)

    def _is_over(self, delivery: Delivery, now: Now) -> bool:
        """Whether its time has surely run out."""
        return delivery.expires is not None and delivery.expires <= self._clock.sure_ms(now)

    def _set_timer(self, after_ms: int, kind: Kind, id: int, now: Now) -> None:
        self._timers.set(now.mono_ms + after_ms, kind, id)
        live = len(self.open) + len(self.backlog) + len(self._questions)
        if len(self._timers) > 4 * live + STALE_TIMERS_MIN:
            self._timers.keep(self._is_live)

    def _is_live(self, at_ms: int, kind: Kind, id: int) -> bool:
        if kind == "answer":
            return id in self._questions
        if kind == "wake":
            return any(queue.wake_ms == at_ms for queue in self.queues.values())
        return self.find(id) is not None

    def _arm(self, queue: Queue, now: Now) -> None:
        """See to it that what sleeps is looked at when the first of it is due."""
        sure_ms = self._clock.sure_ms(now)
        due = queue.sleepers.next_after(sure_ms)
        if due is not None:
            wake_ms = now.mono_ms + due - sure_ms
            if queue.wake_ms is None or wake_ms < queue.wake_ms:
                queue.wake_ms = wake_ms
                self._set_timer(due - sure_ms, "wake", queue.number, now)

    # -- output -----------------------------------------------------------------------------------

    def _send(self, peer: bytes, verb: bytes, payload: object) -> None:
        self.out.sends.append((peer, [verb, frames.encode(payload)]))

    def _error(
        self, peer: bytes, code: str, sentence: str, verb: str = "", number: int | None = None
    ) -> None:
        self.faults += 1
        self._send(peer, frames.ERROR, frames.Error(code, sentence, verb, number))

    def _observe(self, topic: str, event: dict[str, object]) -> None:
        if self.observed:
            self.out.events.append((topic, event))

    def _observe_delivery(self, topic: str, delivery: Delivery, note: str | None) -> None:
        event: dict[str, object] = {
            "delivery": delivery.id, "destination": delivery.destination,
            "subject": delivery.subject, "attempt": delivery.attempts, "note": note,
        }  # fmt: skip
        self._observe(topic, event)
