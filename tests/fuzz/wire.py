"""The wire: frames to the router's core, and frames to a client."""

import json
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from proto import frames
from proto.errors import BusError
from proto.frames import FrameError
from proto.message import Message
from proto.peer import Peer
from router.core.core import Core, Now
from router.settings import Backoff, BusSettings, Destination, Permission, Route, Settings
from tests.fuzz.mutate import mutated
from tests.fuzz.target import READ, REFUSED, Target, Wrong

VECTORS: Final = Path(__file__).parents[1] / "vectors"
SETTINGS: Final = Settings(
    bus=BusSettings(body_bytes_max=10_000, sessions_max=50),
    destinations={
        "sink": Destination(backoff=Backoff(attempts_max=3, first_ms=10, longest_ms=100)),
        "small": Destination(open_max=20),
    },
    routes=[
        Route(type="test.*", to=["sink"]),
        Route(type="call.*", to=["sink", "small"]),
        Route(type="*", to=["small"]),
    ],
    permissions={
        name: Permission(publish=["*"], consume=["*"], serve=["*"], ask=["*"], relay=["*"])
        for name in ("smp", "producer", "consumer")
    } | {"nobody": Permission()},
)  # fmt: skip
PEERS: Final = {b"p": "producer", b"c": "consumer", b"s": "smp", b"n": "nobody"}


def vectors(direction: str) -> list[tuple[bytes, bytes]]:
    """Return the golden frames of one direction: verb and payload."""
    found = []
    for name in ("valid.json", "invalid.json"):
        for one in json.loads((VECTORS / name).read_text(encoding="utf-8")):
            parts = [bytes.fromhex(part) for part in one["frames"]]
            if one["direction"] == direction and len(parts) == 2:
                found.append((parts[0], parts[1]))
    return found


def own() -> list[tuple[bytes, bytes]]:
    """Return frames of a session at work."""
    messages = [
        Message.new("test.a.v1", "producer", b"{}", subject="s", id="1"),
        Message.new("call.b.v1", "producer", b"x" * 50, subject="t", id="2", priority=0),
        Message.new("any.c.v1", "producer", b"", id="3", not_before=1_800_000_000_500,
                    expires=1_800_000_900_000, correlation_id="c"),
    ]  # fmt: skip
    made: list[tuple[bytes, Any]] = [
        (frames.PUBLISH, frames.Publish(1, messages)),
        (frames.PUBLISH, frames.Publish(2, messages[:1])),
        (frames.CREDIT, frames.Credit("sink", 50)),
        (frames.CREDIT, frames.Credit("small", 1)),
        (frames.SETTLE, frames.Settle([frames.Settlement(1), frames.Settlement(2, 1, 5, "why")])),
        (frames.SETTLE, frames.Settle([frames.Settlement(3, 2, None, "no")])),
        (frames.REQUEST, frames.Request(1, "sink", 1000, messages[0])),
        (frames.REPLY, frames.Reply(1, body=b"{}")),
        (frames.REPORT, frames.Report(b'{"partners": []}')),
        (frames.PING, frames.Ping(1)),
        (frames.HELLO, frames.Hello([1], "producer", "fuzz")),
    ]
    return [(verb, frames.encode(payload)) for verb, payload in made]


class CoreTarget(Target):
    """Frames to the router's state machine from peers with and without rights; whatever it says
    must be readable to a client, and its books must balance."""

    name = "wire.core"
    weight = 8.0
    group = 500

    async def open(self, folder: Path) -> None:
        self._now = Now(1_800_000_000_000, 1_000)
        self._core = Core(SETTINGS, "bus", 1, Random(1))
        self._ids = count(1)
        self._verbs: list[bytes] = []
        self._samples = own() * 3 + vectors("to_router")
        for peer, name in PEERS.items():
            hello = frames.encode(frames.Hello([1], name))
            self._core.receive(peer, b"", [frames.HELLO, hello], self._now)
        self._turn()

    async def run(self, random: Random) -> str:
        shown = []
        self._verbs.clear()
        for _ in range(random.choice((1, 1, 2, 4))):
            peer = random.choice((*PEERS, b"x"))
            verb, payload = random.choice(self._samples)
            if verb == frames.PUBLISH and random.random() < 0.5:
                payload = self._renamed(payload)
            if random.random() < 0.9:
                payload = mutated("msgpack", (payload,), random)
            if random.random() < 0.03:
                verb = mutated("bytes", (verb,), random)
            parts = [verb, payload]
            if random.random() < 0.01:
                parts = parts[: random.randrange(2)] + [payload] * random.randrange(3)
            shown.append((peer, parts))
            self.shown = shown
            self._core.receive(peer, b"", parts, self._now)
            self._turn()
        ahead = random.choice((0, 1, 20, 1500))
        self._now = Now(self._now.wall_ms + ahead, self._now.mono_ms + ahead)
        self._core.tick(self._now)
        if random.random() < 0.05:
            self._core.beat(self._now)
        self._turn()
        return self._verbs[0].decode() if self._verbs else "silence"

    def _renamed(self, payload: bytes) -> bytes:
        """Return a PUBLISH whose messages are new ones."""
        try:
            batch, messages = msgspec.msgpack.decode(payload)
        except (ValueError, TypeError):
            return payload  # one of the vectors that are wrong
        for one in messages if isinstance(messages, list) else ():
            if isinstance(one, list) and one:
                one[0] = f"n{next(self._ids)}"
        return msgspec.msgpack.encode([batch, messages])

    def _turn(self) -> None:
        core = self._core
        while core.out.sends or core.out.batch:
            sends, core.out.sends = core.out.sends, []
            for _, parts in sends:
                self._verbs.append(parts[0])
                try:
                    frames.read(parts, frames.PEER_READS)
                except FrameError as error:
                    raise Wrong(f"said what no client reads: {parts[0]!r} {error}") from None
            core.out.events.clear()
            if core.out.batch:
                core.persisted(core.take_batch(), {}, self._now)

    async def close(self) -> None:
        for queue in self._core.queues.values():
            ended = sum(count for word, count in queue.totals.items() if word != "accepted")
            if queue.totals["accepted"] != ended + queue.open:
                raise Wrong(f"the books of {queue.name} do not balance: {queue.totals}")


class ClientTarget(Target):
    """Frames to a client's side of a session."""

    name = "wire.client"
    weight = 6.0

    async def open(self, folder: Path) -> None:
        self._samples = vectors("to_peer") or vectors("to_client")
        if not self._samples:
            raise Wrong("there are no vectors to a client")

    async def run(self, random: Random) -> str:
        peer = Peer("producer", "fuzz")
        peer.greet()
        peer.credit("sink", 10)
        peer.publish([Message.new("test.a.v1", "producer", b"{}")])
        shown = []
        answer = READ
        for _ in range(random.choice((1, 2, 3))):
            verb, payload = random.choice(self._samples)
            if random.random() < 0.8:
                payload = mutated("msgpack", (payload,), random)
            shown.append((verb, payload))
            self.shown = shown
            try:
                peer.receive([verb, payload])
            except (FrameError, BusError):
                answer = REFUSED
            peer.take_outbox()
        return answer


TARGETS: Final = (CoreTarget, ClientTarget)
