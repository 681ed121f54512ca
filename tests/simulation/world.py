"""A world around the real core: peers, a disk, a clock and crashes, all decided by one seed.

The disk is a model of the store's contract: what `write` was given is there after a crash if the
core was told so, and may or may not be there if it was not yet. The checks are the promises.
"""

from dataclasses import dataclass, field
from random import Random

from proto import frames
from proto.message import Message, decode_message
from router.core.core import Core, Now
from router.core.delivery import State
from router.core.output import Batch, OpenDelivery
from router.settings import Backoff, Destination, Permission, Route, Settings

QUEUES = ("first", "second")
BACKOFF = Backoff(attempts_max=6, first_ms=50, longest_ms=400)
SETTINGS = Settings(
    destinations={name: Destination(backoff=BACKOFF) for name in QUEUES},
    routes=[Route(type="test.*", to=list(QUEUES))],
    permissions={
        "producer": Permission(publish=["test.*"]),
        "consumer": Permission(consume=["*"]),
    },
)
KEYS = {b"producer-key": "producer", b"consumer-key": "consumer"}
PRODUCER = b"p"


@dataclass
class Disk:
    """What would be found after a crash."""

    messages: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # accepted at, raw
    ids: dict[str, int] = field(default_factory=dict)
    deliveries: dict[int, tuple[int, str]] = field(default_factory=dict)  # n, destination
    attempts: dict[int, tuple[int, int | None]] = field(default_factory=dict)  # number, due
    backlog: dict[int, int] = field(default_factory=dict)  # delivery -> priority
    frontier: int = 1
    ended: dict[int, State] = field(default_factory=dict)
    epoch: int = 0

    def write(self, batch: Batch) -> dict[int, int]:
        """The store's contract, in memory."""
        duplicates: dict[int, int] = {}
        for n, _, id, _, at, first, destinations, _, raw in batch.messages:
            if id in self.ids:
                duplicates[n] = self.ids[id]
                continue
            self.ids[id] = n
            self.messages[n] = (at, raw)
            for delivery, name in enumerate(destinations.split(" "), first):
                self.deliveries[delivery] = (n, name)
        for delivery, number, _, _, _, due in batch.attempts:
            self.attempts[delivery] = (number, due)
        for delivery, _, _, state, *_ in batch.outcomes:
            assert delivery not in self.ended, "a delivery ended twice"
            self.ended[delivery] = State(state)
        self._file(batch)
        return duplicates

    def _file(self, batch: Batch) -> None:
        for _, priority, delivery, _ in batch.filed:
            self.backlog[delivery] = priority
        for _, priority, delivery, _ in batch.unfiled:
            assert self.backlog.pop(delivery) == priority
        if batch.filed or batch.frontier > self.frontier + 40:
            self.frontier = batch.frontier
        for delivery, (n, _) in self.deliveries.items():
            hidden = n < self.frontier and delivery not in self.backlog
            assert not hidden or delivery in self.ended, "the frontier is too high"

    def open(self) -> list[OpenDelivery]:
        """What a start takes up."""
        rows = []
        for delivery, (n, queue) in sorted(self.deliveries.items()):
            if delivery not in self.ended:
                number, due = self.attempts.get(delivery, (0, None))
                filed = self.backlog.get(delivery)
                rows.append(OpenDelivery(delivery, n, queue, *self.messages[n], number, due, filed))
        return rows


class World:
    """One seed's life of a router."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = Disk()
        self.wall_ms, self.mono_ms = 1_800_000_000_000, 1_000
        self.batch_number = 0
        self.sequence = 0
        self.unaccepted: dict[int, list[Message]] = {}
        self.accepted: dict[str, str] = {}  # message id -> subject
        self.effects: dict[tuple[str, str], list[int]] = {}
        self.seen: dict[tuple[str, str], int] = {}  # (queue, message id) -> delivery id
        self.crashes = 0
        self.steps = 0
        self._start()

    # -- what can happen --------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen, then check the promises."""
        self.steps += 1
        actions = (
            (self._publish, 6), (self._write, 8), (self._settle, 10), (self._pass_time, 4),
            (self._change_credit, 2), (self._lose_consumer, 1), (self._repeat, 1), (self._crash, 1),
        )  # fmt: skip
        action = self.random.choices([a for a, _ in actions], [w for _, w in actions])[0]
        action()
        self._carry_out()
        self._check()

    def settle_all(self) -> None:
        """Faults stop: everything accepted must end."""
        for _ in range(4000):
            self._write()
            self._settle(kind=frames.ACK)
            self._pass_time()
            self._carry_out()
            left = len(self.core.open) + len(self.core.backlog)
            if not left and not self.core.out.batch and not self.writing:
                return
        raise AssertionError(f"{left} deliveries never ended")

    def _start(self) -> None:
        self.disk.epoch += 1
        self.core = Core(SETTINGS, "bus", self.disk.epoch, Random(self.random.random()))
        self.core.names = dict(KEYS)
        self.core.frontier_lag_max = 30
        next_n = max(self.disk.messages, default=0) + 1
        next_delivery = max(self.disk.deliveries, default=0) + 1
        self.core.restore(self.disk.open(), next_n, next_delivery, self.now)
        self.writing: list[Batch] = []
        self.holding: dict[bytes, dict[int, str]] = {}
        self.windows: dict[tuple[bytes, str], int] = {}
        self._say(PRODUCER, b"producer-key", frames.HELLO, frames.Hello([1], "producer"))
        for batch, messages in self.unaccepted.items():
            self._send_batch(batch, messages)

    @property
    def now(self) -> Now:
        return Now(self.wall_ms, self.mono_ms)

    def _publish(self) -> None:
        messages = []
        for _ in range(self.random.randint(1, 4)):
            self.sequence += 1
            subject = self.random.choice(("", "a", "b", "c"))
            messages.append(
                Message.new(
                    "test.message.v1", "producer", str(self.sequence).encode(),
                    id=f"m{self.sequence}", subject=subject, priority=self.random.randint(0, 3),
                    not_before=None if subject or self.sequence % 9 else self.wall_ms + 300,
                )
            )  # fmt: skip
        self.batch_number += 1
        self.unaccepted[self.batch_number] = messages
        self._send_batch(self.batch_number, messages)

    def _repeat(self) -> None:
        """The producer did not hear ACCEPTED and says it all again."""
        for batch, messages in self.unaccepted.items():
            self._send_batch(batch, messages)

    def _send_batch(self, number: int, messages: list[Message]) -> None:
        self._say(PRODUCER, b"producer-key", frames.PUBLISH, frames.Publish(number, messages))

    def _write(self) -> None:
        if len(self.writing) < 2 and self.core.out.batch:
            self.writing.append(self.core.take_batch())
        if self.writing and self.random.random() < 0.8:
            batch = self.writing.pop(0)
            self.core.persisted(batch, self.disk.write(batch), self.now)

    def _change_credit(self) -> None:
        peer = self.random.choice((b"c1", b"c2"))
        if peer not in self.core.sessions:
            self.holding[peer] = {}
            self._say(peer, b"consumer-key", frames.HELLO, frames.Hello([1], "consumer"))
        queue, window = self.random.choice(QUEUES), self.random.randint(0, 6)
        self.windows[peer, queue] = max(window, self._held(peer, queue))
        self._say(peer, b"consumer-key", frames.CREDIT, frames.Credit(queue, window))

    def _settle(self, kind: int | None = None) -> None:
        for peer, held in self.holding.items():
            chosen = [d for d in held if kind is not None or self.random.random() < 0.6]
            settlements = []
            for delivery in chosen:
                outcome = kind if kind is not None else self.random.choice((0, 0, 0, 0, 1, 2))
                after = self.random.choice((None, 0, 100)) if outcome == frames.RETRY else None
                settlements.append(frames.Settlement(delivery, outcome, after, "note"))
                del held[delivery]
            if settlements:
                self._say(peer, b"consumer-key", frames.SETTLE, frames.Settle(settlements))
        if kind is not None and not self.windows_open():
            self._change_credit()

    def windows_open(self) -> bool:
        """Whether every queue has a consumer with credit."""
        return all(any(h.window for h in self.core.queues[q].holdings) for q in QUEUES)

    def _lose_consumer(self) -> None:
        if self.holding:
            peer = self.random.choice(sorted(self.holding))
            self.core.gone(peer, self.now, "vanished")
            self._forget(peer)

    def _forget(self, peer: bytes) -> None:
        del self.holding[peer]
        for key in [key for key in self.windows if key[0] == peer]:
            del self.windows[key]

    def _pass_time(self) -> None:
        passed = self.random.choice((1, 20, 200, 600))
        self.mono_ms += passed
        self.wall_ms += passed + self.random.choice((0, 0, 0, 3_000, -3_000))
        self.core.tick(self.now)

    def _crash(self) -> None:
        """kill -9: what was being written may or may not have reached the disk, in order."""
        self.crashes += 1
        for batch in self.writing[: self.random.randint(0, len(self.writing))]:
            self.disk.write(batch)
        self._start()

    # -- the wire ---------------------------------------------------------------------------------

    def _say(self, peer: bytes, key: bytes, verb: bytes, payload: object) -> None:
        self.core.receive(peer, key, [verb, frames.encode(payload)], self.now)

    def _carry_out(self) -> None:
        sends, self.core.out.sends = self.core.out.sends, []
        for peer, parts in sends:
            payload = frames.read(parts, frames.PEER_READS)
            if isinstance(payload, frames.Accepted):
                for number in payload.batches:
                    for message in self.unaccepted.pop(number, []):
                        self.accepted[message.id] = message.subject
                        assert message.id in self.disk.ids, "accepted before it was on disk"
            elif isinstance(payload, frames.Deliver) and peer in self.holding:
                for item in payload.deliveries:
                    self._take(peer, payload.destination, item)

    def _take(self, peer: bytes, queue: str, item: frames.DeliveredMessage) -> None:
        message = item.message
        assert message.id in self.disk.ids, "delivered before it was on disk"
        assert item.delivery not in self.holding[peer], "delivered twice to one consumer"
        self.holding[peer][item.delivery] = queue
        known = self.seen.setdefault((queue, message.id), item.delivery)
        assert known == item.delivery, "the delivery id changed"
        if message.subject:
            effects = self.effects.setdefault((queue, message.subject), [])
            number = int(message.body)
            if number not in effects:
                effects.append(number)

    # -- the promises -----------------------------------------------------------------------------

    def _held(self, peer: bytes, queue: str) -> int:
        return sum(1 for name in self.holding[peer].values() if name == queue)

    def _check(self) -> None:
        for (peer, queue), window in self.windows.items():
            assert self._held(peer, queue) <= window, "credit exceeded"
        heads: set[tuple[str, str]] = set()
        for delivery in (*self.core.open.values(), *self.core.backlog.values()):
            if delivery.subject and delivery.state in (
                State.IN_FLIGHT,
                State.READY,
                State.RETRYING,
            ):
                line = (delivery.queue.name, delivery.subject)
                assert line not in heads, "two of one subject are not waiting"
                heads.add(line)
        for (queue, subject), numbers in self.effects.items():
            assert numbers == sorted(numbers), f"order broken: {queue} {subject} {numbers}"

    def check_end(self) -> None:
        """Everything accepted has ended at both destinations, once."""
        assert set(self.accepted) <= set(self.disk.ids), "accepted and lost"
        assert set(self.disk.deliveries) == set(self.disk.ended)
        assert len(self.disk.deliveries) == len(QUEUES) * len(self.disk.messages)
        for delivery, state in self.disk.ended.items():
            assert state is not State.EXPIRED, f"{delivery} had no deadline"
        for _, raw in self.disk.messages.values():
            assert decode_message(raw).source == "producer"
