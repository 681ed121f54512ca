"""Lives of the core on one real journal, with clocks that are set by hand."""

from pathlib import Path
from random import Random
from typing import Any

from proto import frames
from proto.message import Message, Priority
from router.core.core import Core, Now
from router.core.delivery import State
from router.settings import Backoff, Destination, Permission, Route, Settings
from router.store.sqlite import SqliteStore

NOON = 1_800_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
BEAT_MS = 1_000


def settings(destination: Destination | None = None, **more: Destination) -> Settings:
    """Return a bus with one queue `sink` from `producer` (and `rival`) to `consumer`."""
    publish = Permission(publish=["test.*", "other.*"], ask=["*"])
    return Settings(
        destinations={"sink": destination or Destination(), **more},
        routes=[Route(type="test.*", to=["sink"]), *(Route("other.*", [name]) for name in more)],
        permissions={
            "producer": publish, "rival": publish,
            "consumer": Permission(consume=["*"], serve=["*"]),
        },
    )  # fmt: skip


def message(id: str, priority: int = Priority.ROUTINE, subject: str = "", **rest: Any) -> Message:
    """Make a message to `sink`."""
    type, source = rest.pop("type", "test.message.v1"), rest.pop("source", "producer")
    return Message(id, type, source, subject, NOON, priority, **rest)


class Lives:
    """A core and its journal in `folder`; `begin` is the next start of the router."""

    def __init__(self, folder: Path, config: Settings | None = None) -> None:
        self.folder = folder
        self.config = config or settings()
        self.now = Now(NOON, 1_000)
        self.store: SqliteStore | None = None
        self.begin()

    def begin(self, wall_ms: int | None = None) -> None:
        """Start the router (again): kill -9, and the clock is as given."""
        if self.store is not None:
            self.store.close()
        self.now = Now(self.now.wall_ms if wall_ms is None else wall_ms, 1_000)
        self.store = store = SqliteStore(self.folder)
        opened = store.open()
        self.core = core = Core(self.config, opened.bus, opened.epoch, Random(1))
        for name, totals in opened.totals.items():
            core.queue_of(name).totals.update(totals)
        core.restore(store.filed(), list(store.recent()), opened.next_n, opened.next_delivery,
                     self.now, opened.newest_ms)  # fmt: skip
        self.said: list[tuple[bytes, Any]] = []
        self.batch = 0
        self.flush()
        self.hear(b"p", frames.HELLO, frames.Hello([1], "producer"))
        self.answers(b"p")

    def close(self) -> None:
        """Give the files back."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def hear(self, peer: bytes, verb: bytes, payload: object) -> None:
        """Say something to the core."""
        self.core.receive(peer, b"", [verb, frames.encode(payload)], self.now)

    def answers(self, peer: bytes) -> list[Any]:
        """Take what the core has said to a peer."""
        sends, self.core.out.sends = self.core.out.sends, []
        self.said += [(to, frames.read(parts, frames.PEER_READS)) for to, parts in sends]
        heard = [payload for to, payload in self.said if to == peer]
        self.said = [one for one in self.said if one[0] != peer]
        return heard

    def flush(self) -> None:
        """Let the disk do all that there is to do."""
        assert self.store is not None
        while self.core.out.batch:
            batch = self.core.take_batch()
            duplicates = self.store.write(batch) if batch.writes else {}
            loaded = [self.store.load(load) for load in batch.loads]
            self.core.persisted(batch, duplicates, self.now, loaded)

    def accept(self, *messages: Message, peer: bytes = b"p") -> list[str]:
        """Publish; return the codes of the refusals."""
        codes = []
        for start in range(0, len(messages), 4000):
            self.batch += 1
            part = list(messages[start : start + 4000])
            self.hear(peer, frames.PUBLISH, frames.Publish(self.batch, part))
            for answer in self.answers(peer):
                if isinstance(answer, frames.RefusedBatch):
                    codes += [refusal.code for refusal in answer.refusals]
            self.flush()
        return codes

    def greet(self, peer: bytes, name: str) -> None:
        """Begin a session."""
        self.hear(peer, frames.HELLO, frames.Hello([1], name))
        self.answers(peer)

    def consume(self, window: int = 10, peer: bytes = b"c", destination: str = "sink") -> None:
        """Grant credit, in a session that is begun for it."""
        if peer not in self.core.sessions:
            self.greet(peer, "consumer")
        self.hear(peer, frames.CREDIT, frames.Credit(destination, window))
        self.flush()

    def taken(self, peer: bytes = b"c") -> dict[str, int]:
        """Return what a consumer was delivered since last asked: id -> delivery."""
        return {
            one.message.id: one.delivery
            for answer in self.answers(peer)
            if isinstance(answer, frames.Deliver)
            for one in answer.deliveries
        }

    def settle(
        self, *deliveries: int, outcome: int = frames.ACK, after: int | None = None,
        peer: bytes = b"c",
    ) -> None:  # fmt: skip
        """Settle deliveries."""
        each = [frames.Settlement(delivery, outcome, after, "why") for delivery in deliveries]
        self.hear(peer, frames.SETTLE, frames.Settle(each))
        self.flush()

    def wait(self, ms: int, step_ms: int = 0) -> None:
        """Let time pass, while peers answer pings; the wall clock steps besides."""
        left = ms
        while left or step_ms:
            passed = min(left, BEAT_MS)
            left -= passed
            wall_ms = self.now.wall_ms + passed + step_ms
            self.now, step_ms = Now(wall_ms, self.now.mono_ms + passed), 0
            self.core.beat(self.now)
            self.flush()
            for peer in self.core.sessions:
                self.hear(peer, frames.PONG, frames.Ping())

    def totals(self, name: str = "sink") -> dict[str, int]:
        """Return the books of a queue."""
        return dict(self.core.queues[name].totals)


def brisk(**rest: Any) -> Destination:
    """Return a queue that is quick to try again."""
    return Destination(backoff=Backoff(first_ms=100, longest_ms=1_000), **rest)


__all__ = ["DAY", "HOUR", "NOON", "Lives", "State", "brisk", "message", "settings"]
