"""Peers that are broken or mean harm: they get their error, and nobody else notices.

Each test runs its villain beside a well-behaved pair that publishes and takes in order; at the end
nothing of the pair's is missing and the books balance.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest
import zmq

from proto import KeyPair, frames
from proto.frames import PEER_READS
from tests.integration.bus import RouterProcess
from tests.until import until

ROUTES = (
    "[destinations.sink]\n[destinations.trap]\nopen_max = 500\n"
    "emergency_percent = 0\nsender_percent = 100\n"
    '[[routes]]\ntype = "test.*"\nto = ["sink"]\n'
    '[[routes]]\ntype = "trap.message.*"\nto = ["trap"]\n'
)
PERMISSIONS = (
    '[peers.producer]\npublish = ["test.*"]\n[peers.consumer]\nconsume = ["sink"]\n'
    '[peers.villain]\npublish = ["trap.*"]\nconsume = ["trap"]\nask = ["trap"]\nserve = ["trap"]\n'
)
LIMITS = "body_bytes_max = 65536\nframe_bytes_max = 1048576\nsessions_max = 40\n"
HELLO = [frames.HELLO, frames.encode(frames.Hello([1], "villain"))]


class Villain:
    """A socket of libzmq with the villain's key and no manners."""

    def __init__(self, router: RouterProcess) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        key = KeyPair.load(router.keys / "villain.key")
        self.public, self.secret = key.public, key.secret
        self.server = (router.keys / "router.pub").read_bytes().strip()
        self.address = router.address
        self.sockets: list[zmq.Socket[bytes]] = []
        self.socket = self.connect()

    def connect(self) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.curve_serverkey = self.server
        socket.connect(self.address)
        self.sockets.append(socket)
        return socket

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart(list(parts))

    def hear(self, timeout_ms: int = 3000, pings: bool = False) -> Any:
        """Return the next answer, or None; PING and PONG only if asked for."""
        while self.socket.poll(timeout_ms):
            payload = frames.read(self.socket.recv_multipart(), PEER_READS)
            if pings or not isinstance(payload, frames.Ping):
                return payload
        return None

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(0)
        self.context.term()


def publish(number: int, *messages: object) -> tuple[bytes, bytes]:
    return frames.PUBLISH, msgspec.msgpack.encode([number, list(messages)])


def trap(id: str, body: bytes = b"") -> list[object]:
    tail = [2, None, None, None, None, None, "application/json", body]
    return [id, "trap.message.v1", "villain", "", 1, *tail]


async def consume(router: RouterProcess, taken: list[int], wanted: asyncio.Event) -> None:
    async with router.client("consumer") as bus:
        async for delivery in bus.consume("sink"):
            number = int(delivery.message.body)
            if number % 40 == 3 and delivery.attempt == 1:
                delivery.retry("not yet", 0.02)  # those behind it must not overtake
                continue
            taken.append(number)
            delivery.ack()
            wanted.set()


async def produce(router: RouterProcess, sent: list[int], over: asyncio.Event) -> None:
    async with router.client("producer") as bus:
        while not over.is_set():
            body = str(len(sent)).encode()
            await bus.publish(bus.message("test.message.v1", body, subject="call"))
            sent.append(len(sent))
            await asyncio.sleep(0.002)


@asynccontextmanager
async def honest_pair(router: RouterProcess) -> AsyncIterator[list[int]]:
    """Run a producer and a consumer meanwhile; in the end compare what was sent and taken."""
    sent: list[int] = []
    taken: list[int] = []
    over, wanted = asyncio.Event(), asyncio.Event()
    taking = asyncio.create_task(consume(router, taken, wanted))
    making = asyncio.create_task(produce(router, sent, over))
    await asyncio.wait_for(wanted.wait(), 10)
    yield taken
    seen = len(taken)
    await until(lambda: len(taken) > seen, "the honest pair, which stands still", 5.0)
    over.set()
    await making
    await until(lambda: len(taken) >= len(sent), "what was sent last")
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert taken == sent


def balance(router: RouterProcess) -> dict[str, Any]:
    """accepted = settled + dead + expired + dropped + open, at every destination and in all."""
    status = router.ask("status")
    for row in status["queues"]:
        open_ones = row["pending"] + row["in_flight"] + row["retrying"]
        ended = row["settled"] + row["dead"] + row["expired"] + row["dropped"]
        assert row["accepted"] == ended + open_ones, row
    # each route of this test has one destination: messages and deliveries are as many
    assert status["counters"]["accepted"] == sum(row["accepted"] for row in status["queues"])
    assert router.ask("check")["wrong"] == []
    return status


def beside_an_honest_pair(
    work: Callable[[RouterProcess, Villain], Awaitable[None]], bus: str = LIMITS
) -> None:
    """Run `work` with a villain while the honest pair works."""

    async def run(router: RouterProcess) -> None:
        async with honest_pair(router):
            villain = Villain(router)
            try:
                await work(router, villain)
                asked = await asyncio.to_thread(router.ask, "status")
                assert asked["state"] == "running", "the operator is answered meanwhile"
            finally:
                villain.close()

    peers = ("producer", "consumer", "villain")
    with RouterProcess(peers=peers, routes=ROUTES, permissions=PERMISSIONS, bus=bus) as router:
        asyncio.run(run(router))
        balance(router)


def test_every_broken_frame_has_its_code_and_the_session_goes_on() -> None:
    broken = [
        ((b"HELLO",), "bad_frame"),
        ((frames.PING, frames.encode(frames.Ping(1)), b"third"), "bad_frame"),
        ((b"NONSENSE", b"\x90"), "unknown_verb"),
        ((b"PUBLISH", b"\xc1"), "bad_frame"),
        ((b"PUBLISH", publish(1, trap("a"))[1][:-3]), "bad_frame"),
        ((frames.CREDIT, frames.encode(frames.Credit("nowhere", 1))), "unknown_destination"),
        ((frames.CREDIT, frames.encode(frames.Credit("sink", 1))), "not_permitted"),
    ]

    async def work(_: RouterProcess, villain: Villain) -> None:
        villain.say(*publish(1, trap("early")))
        assert villain.hear().code == "hello_required"
        villain.say(frames.HELLO, frames.encode(frames.Hello([99], "villain")))
        assert villain.hear().code == "bad_version"
        villain.say(frames.HELLO, frames.encode(frames.Hello([1], "producer")))
        assert villain.hear().code == "name_mismatch"
        villain.say(frames.HELLO, b"\x92\x91\x01\xa9<script>\n")
        assert villain.hear().code == "bad_frame", "not a name"
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        for parts, code in broken:
            villain.say(*parts)
            assert villain.hear().code == code, parts
        wrong = [["id", type, *trap("")[2:]] for type in ("other.v1", "trap.lost.v1", "trap.!")]
        villain.say(*publish(2, trap("late", b"x" * 65537), *wrong))
        refused = villain.hear()
        codes = [one.code for one in refused.refusals]
        assert codes == ["body_too_large", "not_permitted", "no_route", "bad_message"]
        villain.say(*publish(3, trap("fine")))
        assert villain.hear() == frames.Accepted([3])

    beside_an_honest_pair(work)


def test_noise_is_answered_with_errors_and_nothing_else() -> None:
    async def work(router: RouterProcess, villain: Villain) -> None:
        random = Random(20261123)
        verbs = [verb for verb in frames.ROUTER_READS if verb not in (frames.HELLO, frames.BYE)]
        good = publish(1, trap("x", b"body"))[1]
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        for number in range(3000):
            payload = bytearray(good if number % 2 else random.randbytes(random.randrange(80)))
            for _ in range(random.randrange(1, 4)):
                if payload:
                    payload[random.randrange(len(payload))] = random.randrange(256)
            villain.say(random.choice(verbs), bytes(payload))
            if number % 100 == 0:
                await asyncio.sleep(0)
        villain.say(frames.PING, frames.encode(frames.Ping(77)))
        codes = set()
        while (heard := villain.hear(pings=True)) != frames.Ping(77):
            assert heard is not None, "no answer to the last PING"
            if isinstance(heard, frames.Error):
                codes.add(heard.code)
        assert codes <= {"bad_frame", "not_permitted", "unknown_destination"}
        assert "bad_frame" in codes
        assert router.ask("status")["state"] == "running"

    beside_an_honest_pair(work)


def test_a_frame_beyond_all_measure_costs_its_sender_the_connection() -> None:
    async def work(router: RouterProcess, villain: Villain) -> None:
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        villain.say(frames.PUBLISH, bytes(2 * 1024 * 1024))
        assert villain.hear(500) is None
        villain.say(frames.PING, frames.encode(frames.Ping(1)))
        assert villain.hear().code == "hello_required", "libzmq has connected it anew"
        assert router.ask("status")["rss_bytes"] < 300e6

    beside_an_honest_pair(work)


def test_a_crowd_of_sessions_meets_a_limit() -> None:
    async def work(_: RouterProcess, villain: Villain) -> None:
        crowd = [villain.connect() for _ in range(60)]
        codes: list[str] = []
        for socket in crowd:
            socket.send_multipart(HELLO)
        for socket in crowd:
            assert await asyncio.to_thread(socket.poll, 5000)
            answer = frames.read(socket.recv_multipart(), PEER_READS)
            codes.append("" if isinstance(answer, frames.Welcome) else answer.code)  # type: ignore[attr-defined]
        assert codes.count("too_many_sessions") == 60 - 10, "a quarter of 40 is one name's share"
        assert codes.count("") == 10

    beside_an_honest_pair(work)


def test_a_consumer_that_never_reads_and_a_publisher_that_never_listens() -> None:
    async def work(router: RouterProcess, villain: Villain) -> None:
        villain.say(*HELLO)
        villain.say(frames.CREDIT, frames.encode(frames.Credit("trap", 100_000)))
        for number in range(400):
            villain.say(*publish(number, *(trap(f"{number}-{n}", b"x" * 1000) for n in range(20))))
            if number % 20 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(1)
        status = router.ask("status")
        assert status["rss_bytes"] < 300e6
        trapped = next(row for row in status["queues"] if row["destination"] == "trap")
        assert trapped["pending"] + trapped["in_flight"] == 500, "its own queue is full"
        assert status["counters"]["refused"] > 0

    beside_an_honest_pair(work)


def test_one_that_vanishes_without_a_word_gives_back_what_it_held() -> None:
    async def work(router: RouterProcess, villain: Villain) -> None:
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        villain.say(*publish(1, trap("held")))
        assert villain.hear() == frames.Accepted([1])
        villain.say(frames.CREDIT, frames.encode(frames.Credit("trap", 1)))
        first = villain.hear()
        villain.socket.close(0)
        villain.socket = villain.connect()
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        villain.say(frames.CREDIT, frames.encode(frames.Credit("trap", 1)))
        again = await asyncio.to_thread(villain.hear, 10_000)
        assert again.deliveries[0].delivery == first.deliveries[0].delivery
        assert again.deliveries[0].attempt == 2

    beside_an_honest_pair(work, LIMITS + "session_timeout_ms = 2000\n")


def test_questions_pass_over_one_that_vanished_without_a_word() -> None:
    """Before the heartbeat finds it out: what cannot be handed over was heard by nobody."""

    async def work(router: RouterProcess, villain: Villain) -> None:
        for _ in range(2):
            villain.socket = villain.connect()
            villain.say(*HELLO)
            assert isinstance(villain.hear(), frames.Welcome)
            villain.say(frames.CREDIT, frames.encode(frames.Credit("trap", 0)))
        asker, dead, server = villain.sockets
        villain.socket = asker
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        dead.close(0)
        await asyncio.sleep(0.5)
        for number in range(4):
            question = msgspec.Raw(msgspec.msgpack.encode(trap(f"q{number}")))
            villain.say(
                frames.REQUEST, frames.encode(frames.RequestRaw(number, "trap", 5000, question))
            )
        villain.socket = server
        heard = [await asyncio.to_thread(villain.hear) for _ in range(4)]
        for one in heard:
            villain.say(frames.REPLY, frames.encode(frames.Reply(one.request, body=b"{}")))
        villain.socket = asker
        replies = [await asyncio.to_thread(villain.hear) for _ in range(4)]
        assert sorted((one.request, one.code) for one in replies) == [(n, "") for n in range(4)]

    beside_an_honest_pair(work)


def test_one_that_stays_and_says_nothing_gives_back_what_it_held() -> None:
    """Its connection is as good as ever, so only its silence tells."""

    async def work(router: RouterProcess, villain: Villain) -> None:
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        villain.say(*publish(1, trap("held")))
        assert villain.hear() == frames.Accepted([1])
        villain.say(frames.CREDIT, frames.encode(frames.Credit("trap", 1)))
        first = villain.hear()
        names = [row["name"] for row in router.ask("sessions")["sessions"]]
        assert "villain" in names
        await asyncio.to_thread(
            router.wait_until,
            "sessions",
            lambda answer: "villain" not in [row["name"] for row in answer["sessions"]],
        )
        villain.socket = villain.connect()
        villain.say(*HELLO)
        assert isinstance(villain.hear(), frames.Welcome)
        villain.say(frames.CREDIT, frames.encode(frames.Credit("trap", 1)))
        again = villain.hear()
        assert again.deliveries[0].delivery == first.deliveries[0].delivery
        assert again.deliveries[0].attempt == 2

    beside_an_honest_pair(work, LIMITS + "session_timeout_ms = 2000\n")


def test_a_chosen_routing_id_gets_nothing_but_an_error() -> None:
    """Two peers that choose the same one would be sent each other's deliveries."""

    async def work(router: RouterProcess, villain: Villain) -> None:
        socket: zmq.Socket[bytes] = villain.context.socket(zmq.DEALER)
        villain.sockets.append(socket)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTING_ID, b"consumer-1")
        socket.curve_publickey, socket.curve_secretkey = villain.public, villain.secret
        socket.curve_serverkey = villain.server
        socket.connect(villain.address)
        villain.socket = socket
        villain.say(*HELLO)
        assert villain.hear().code == "bad_frame"
        names = [row["name"] for row in router.ask("sessions")["sessions"]]
        assert sorted(names) == ["consumer", "producer"]

    beside_an_honest_pair(work)
