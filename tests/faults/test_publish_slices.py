"""A large PUBLISH is looked at in slices: others go between them, and nobody sees the cuts."""

import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from random import Random
from typing import Any

import msgspec
import pytest
import zmq

from proto import frames
from proto.keys import KeyPair
from proto.message import Message
from router.core.core import Core, Now
from router.core.publishing import SLICE_LENGTH
from router.settings import BusSettings, Destination, Permission, Route, Settings
from tests.integration.bus import RouterProcess
from tests.until import wait_for

ROUTES = (
    "[destinations.sink]\n[destinations.calls]\n"
    '[[routes]]\ntype = "test.*"\nto = ["sink"]\n[[routes]]\ntype = "call.*"\nto = ["calls"]\n'
)
PERMISSIONS = (
    '[peers.producer]\npublish = ["call.*"]\n[peers.large]\npublish = ["test.*"]\n'
    '[peers.consumer]\nconsume = ["sink"]\n'
)
PEERS = ("producer", "large", "consumer")
WAIT_S = 30.0
MEGABYTE = bytes(1_000_000)
SETTINGS = Settings(
    bus=BusSettings(body_bytes_max=2_000_000),
    destinations={"sink": Destination()},
    routes=[Route(type="test.*", to=["sink"])],
    permissions={"producer": Permission(publish=["test.*"])},
)
NOW = Now(1_800_000_000_000, 1_000)


class Raw:
    """A peer that puts its own frames onto the wire."""

    def __init__(self, router: RouterProcess, name: str) -> None:
        self.name = name
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        curve: Any = self.socket
        pair = KeyPair.load(router.keys / f"{name}.key")
        curve.curve_publickey, curve.curve_secretkey = pair.public, pair.secret
        curve.curve_serverkey = (router.keys / "router.pub").read_bytes().strip()
        self.socket.connect(router.address)
        self.say(frames.HELLO, frames.Hello([1], name))
        assert isinstance(self.hear(frames.WELCOME), frames.Welcome)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(0)

    def say(self, verb: bytes, payload: object) -> None:
        self.socket.send_multipart([verb, frames.encode(payload)])

    def publish(self, number: int, *messages: Message) -> None:
        self.say(frames.PUBLISH, frames.Publish(number, list(messages)))

    def message(self, id: str, body: bytes = b"", subject: str = "") -> Message:
        return Message(id, "test.message.v1", self.name, subject, 1, body=body)

    def hear(self, *verbs: bytes) -> Any:
        """Return the next payload of one of these verbs; PINGs are answered meanwhile."""
        deadline = time.monotonic() + WAIT_S
        while self.socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            verb, payload = self.socket.recv_multipart()
            if verb == frames.PING:
                self.socket.send_multipart([frames.PONG, payload])
            if verb in verbs:
                return frames.read([verb, payload], frames.PEER_READS)
        raise AssertionError(f"none of {verbs} within {WAIT_S:g} s")


class Caller(threading.Thread):
    """Publishes one emergency after the other, until told to end."""

    def __init__(self, router: RouterProcess) -> None:
        super().__init__()
        self.accepted = 0
        self._router = router
        self._over = threading.Event()

    def run(self) -> None:
        with self._router.blocking("producer") as bus:
            while not self._over.is_set():
                bus.publish(bus.message("call.card.v1", b"{}", priority=0))
                self.accepted += 1

    def __enter__(self) -> "Caller":
        self.start()
        self.wait_for(3)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(WAIT_S)

    def wait_for(self, count: int) -> None:
        wait_for(lambda: self.accepted >= count, "an emergency to be accepted", WAIT_S)


def serving() -> RouterProcess:
    return RouterProcess(peers=PEERS, routes=ROUTES, permissions=PERMISSIONS)


def sources(router: RouterProcess) -> list[tuple[str, str]]:
    """Source and id of all messages of a journal at rest, in the order of acceptance."""
    with closing(sqlite3.connect(router.folder / "data" / "journal.db")) as journal:
        return journal.execute("select source, id from message order by n").fetchall()


@pytest.mark.fault("D3")
def test_emergencies_go_between_the_slices_of_a_large_frame() -> None:
    """Seen: a frame of 15 MB was read and written in one piece, and an emergency behind it waited
    100 ms; it goes with the next slice."""
    with serving() as router:
        with Caller(router), Raw(router, "large") as peer:
            peer.publish(1, *(peer.message(f"m{n}", MEGABYTE) for n in range(15)))
            assert peer.hear(frames.ACCEPTED, frames.REFUSED) == frames.Accepted([1])
        assert router.stop() == 0
        order = [source for source, _ in sources(router)]
        first = order.index("large")
        last = len(order) - order[::-1].index("large")
        assert order.count("large") == 15
        assert order[first:last].count("producer") >= 3


@pytest.mark.fault("D3")
def test_what_a_peer_says_behind_a_large_frame_keeps_its_place() -> None:
    """A sibling: smaller frames behind it, of the same subject, and a goodbye wait for its end."""
    with serving() as router, Caller(router), Raw(router, "large") as peer:
        ids = [f"m{n}" for n in range(2 * SLICE_LENGTH + 10)]
        peer.publish(1, *(peer.message(id, b"x" * 600, "s") for id in ids))
        for number in range(2, 20):
            ids.append(f"behind-{number}")
            peer.publish(number, peer.message(ids[-1], b"", "s"))
        peer.say(frames.BYE, frames.Bye("that was all"))
        with router.blocking("consumer") as bus:
            taken = []
            for delivery in bus.consume("sink", credit=100, timeout_s=WAIT_S):
                taken.append(delivery.message.id)
                bus.ack(delivery)
                if len(taken) == len(ids):
                    break
        assert taken == ids


@pytest.mark.fault("D3")
def test_a_name_that_sends_more_than_may_wait_comes_forward_all_the_same() -> None:
    """A sibling: twelve frames at once are many times a share. Who is cut off for it has the first
    of them accepted each time, and is not sent back to where it began."""
    bus = "share_bytes_max = 3500000\nframe_bytes_max = 3500000"
    with (
        RouterProcess(peers=PEERS, routes=ROUTES, permissions=PERMISSIONS, bus=bus) as router,
        Caller(router) as caller,
    ):
        for attempt in range(2):
            with Raw(router, "large") as peer:
                for number in range(12):
                    body = (peer.message(f"{attempt}-{number}-{n}", MEGABYTE) for n in range(3))
                    peer.publish(number, *body)
                assert peer.hear(frames.ACCEPTED, frames.ERROR) == frames.Accepted([0])
                assert peer.hear(frames.ERROR).code == "too_much"
            caller.wait_for(caller.accepted + 3)
            time.sleep(1.0)  # for so long a name is barred
        bounds = router.ask("status")["bounds"]
        assert bounds["waiting_bytes"] == 0 < bounds["waiting_bytes_max"]


@pytest.mark.fault("D3")
def test_frames_that_are_begun_are_bounded_in_bytes() -> None:
    """A sibling: of one name that publishes alone every connection may begin; beyond the bound
    nothing more is read until some of it is written."""
    most, frame = 12_000_000, 8
    bus = f"waiting_bytes_max = {most}"
    with RouterProcess(peers=PEERS, routes=ROUTES, permissions=PERMISSIONS, bus=bus) as router:
        with ExitStack() as open_peers:
            peers = [open_peers.enter_context(Raw(router, "large")) for _ in range(8)]
            for number, peer in enumerate(peers):
                peer.publish(1, *(peer.message(f"{number}-{n}", MEGABYTE) for n in range(frame)))
            seen: list[int] = []

            def is_all_there(status: dict[str, Any]) -> bool:
                seen.append(status["bounds"]["waiting_bytes"])
                sink = next(one for one in status["queues"] if one["destination"] == "sink")
                return bool(sink["pending"] == len(peers) * frame)

            router.wait_until("status", is_all_there, WAIT_S)
            for peer in peers:
                assert peer.hear(frames.ACCEPTED) == frames.Accepted([1])
        assert max(seen) < most + (frame + 1) * len(MEGABYTE)
        assert router.ask("status")["bounds"]["waiting_bytes"] == 0


def core_of(slice_length: int = 4) -> Core:
    core = Core(SETTINGS, "bus", 1, Random(1))
    core.slice_length = slice_length
    hello = frames.encode(frames.Hello([1], "producer"))
    core.receive(b"p", b"", [frames.HELLO, hello], NOW)
    core.out.sends.clear()
    return core


def publish_of(number: int, subjects: str, body: bytes = b"") -> list[bytes]:
    messages = [
        Message(f"{number}-{at}", "test.message.v1", "producer", subject, 1, body=body)
        for at, subject in enumerate(subjects)
    ]
    return [frames.PUBLISH, frames.encode(frames.Publish(number, messages))]


def ids_of(core: Core) -> list[str]:
    return [row[2] for row in core.out.batch.messages]


@pytest.mark.fault("D3")
def test_what_follows_a_refused_one_in_a_later_slice_is_refused_with_it() -> None:
    """In one frame nothing overtakes what is to come again, wherever the frame is cut."""
    core = core_of()
    core.store_full = True
    assert core.begin(b"p", b"", publish_of(1, "abcdabxxa"), NOW)
    core.store_full = False
    while core.proceed(b"p", NOW):
        pass
    ((_, (verb, payload)),) = core.out.sends
    refused = frames.read([verb, payload], frames.PEER_READS)
    assert isinstance(refused, frames.RefusedBatch)
    assert [one.index for one in refused.refusals] == [0, 1, 2, 3, 4, 5, 8]
    assert {one.code for one in refused.refusals} == {"store_full"}
    assert ids_of(core) == ["1-6", "1-7"]
    assert core.out.batch.accepts == [(b"p", 1)]


@pytest.mark.fault("D3")
def test_it_is_accepted_with_its_last_slice() -> None:
    """ACCEPTED is for the whole frame: earlier slices on the disk are no reason to say it."""
    core = core_of()
    assert core.begin(b"p", b"", publish_of(1, "abcdefghij"), NOW)
    for expected in (True, False):
        batch = core.take_batch()
        core.persisted(batch, {}, NOW)
        assert core.out.sends == []
        assert core.proceed(b"p", NOW) is expected
    core.persisted(core.take_batch(), {}, NOW)
    ((_, (verb, payload)),) = core.out.sends
    assert frames.read([verb, payload], frames.PEER_READS) == frames.Accepted([1])
    assert core.proceed(b"p", NOW) is False


@pytest.mark.fault("D3")
def test_the_next_frame_of_a_peer_never_overtakes() -> None:
    """Whoever feeds the core in another order gets the order of the wire all the same."""
    core = core_of()
    assert core.begin(b"p", b"", publish_of(1, "s" * 9), NOW)
    core.receive(b"p", b"", publish_of(2, "s"), NOW)
    assert ids_of(core) == [*(f"1-{at}" for at in range(9)), "2-0"]
    assert core.out.batch.accepts == [(b"p", 1), (b"p", 2)]


@pytest.mark.fault("D3")
def test_a_slice_is_bounded_in_bytes_and_a_frame_that_is_none_is_refused_whole() -> None:
    core = core_of(slice_length=512)
    assert core.begin(b"p", b"", publish_of(1, "abc", bytes(600_000)), NOW)
    assert ids_of(core) == ["1-0"]
    while core.proceed(b"p", NOW):
        pass
    assert ids_of(core) == ["1-0", "1-1", "1-2"]
    whole = publish_of(2, "s" * 600)[1]
    broken = msgspec.msgpack.encode([3, [msgspec.Raw(whole)]])[:-1]
    assert core.begin(b"p", b"", [frames.PUBLISH, broken], NOW) is False
    assert ids_of(core) == ["1-0", "1-1", "1-2"]
