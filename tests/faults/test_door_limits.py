"""Who is silent, slow or greedy at an HTTP door holds nothing that another one needs."""

import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.body import BadInput, read_body
from connectors.runtime.door.door import Door
from connectors.runtime.door.gate import Gate, HttpSettings, places
from connectors.runtime.door.serving import HttpServer, allow_only, bind
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import CARD, CARD_PATH, play
from tests.integration.house import SMPBUS, House
from tests.leap import leaping
from tests.ports import free_port
from tests.until import until, wait_for

pytestmark = pytest.mark.fault("D11")
PUT = f"PUT {CARD_PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
LARGE = b"x" * 30_000_000


# -- the whole bus --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A router, and the door of 112 with 1,024 descriptors and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    house = House()
    try:
        house.start("router")
        few = f"ulimit -n 1024; exec {SMPBUS} connector sys112 --config {house.config}"
        with house.log_file("sys112").open("ab") as log:
            command = ["sh", "-c", few]
            house.processes["sys112"] = subprocess.Popen(command, stderr=log, stdout=log)
        wait_for(lambda: house.ops("status")["sessions"] == 1, "the session")
        yield house
    finally:
        house.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def strangers(house: House, count: int) -> list[socket.socket]:
    address = ("127.0.0.1", house.ports["sys112_door"])
    return [socket.create_connection(address, timeout=10) for _ in range(count)]


def put(house: House, second: int) -> int:
    body = msgspec.json.decode(msgspec.json.encode(CARD.body))
    body["Card"]["Changed"] = f"2029-01-01T00:00:{second:02}+03:00"
    status: int = house.http("PUT", "sys112_door", CARD_PATH, body)[0]
    return status


def test_cards_pass_1100_silent_connections(house: House) -> None:
    """With 1,024 descriptors 1,100 silent connections let no card through, and no line told of it.
    A place is never held by silence."""
    silent = strangers(house, 1100)
    try:
        assert [put(house, second) for second in range(5)] == [200] * 5
    finally:
        for one in silent:
            one.close()
    log = house.log("sys112")
    assert "connections_per_address" in log
    assert len(log.splitlines()) < 20


def test_bodies_without_end_are_kept_within_bounds(house: House) -> None:
    """1,500 chunked bodies that never end: 801 MiB, with MemoryMax=512M."""
    before = rss_mb(house)
    head = (PUT + "transfer-encoding: chunked\r\n\r\n").encode()
    part = b"61a80\r\n" + b"x" * 400_000  # the end of the part does not come
    slow = strangers(house, 300)
    try:
        for one in slow:
            one.settimeout(5)
            with contextlib.suppress(OSError):  # it was made to make room
                one.sendall(head + part)
        assert put(house, 30) == 200
        assert rss_mb(house) - before < 90
    finally:
        for one in slow:
            one.close()
    assert "bodies_bytes_max" in house.log("sys112")


def rss_mb(house: House) -> float:
    with open(f"/proc/{house.processes['sys112'].pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


# -- one door -------------------------------------------------------------------------------------


async def _echo(request: Request) -> Response:
    try:
        return Response(await read_body(request, 10_000))
    except BadInput as bad:
        return Response(bad.sentence, bad.status)


async def _large(_: Request) -> Response:
    return Response(LARGE)


APP = Starlette(routes=[Route("/", _echo, methods=["POST"]), Route("/large", _large)])
QUICK: dict[str, Any] = {"head_s": 0.3, "body_s": 0.3, "answer_s": 0.5, "idle_s": 5.0}


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[int, HttpServer]]:
    port = free_port()
    told = msgspec.convert(QUICK | settings, HttpSettings)
    server = HttpServer(allow_only(APP, ["127.0.0.0/8"]), bind(f"127.0.0.1:{port}", "test"), told)
    await server.start()
    try:
        yield port, server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def door(**settings: Any) -> AsyncIterator[int]:
    async with served(**settings) as (port, _):
        yield port


def act(what: Callable[[int], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        async with door(**settings) as port:
            async with asyncio.timeout(20):
                await what(port)

    asyncio.run(whole())


async def say(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send `parts` and return all that comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(OSError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
        try:
            return await reader.read()
        except OSError:
            return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


SLOW = {
    "nothing at all": [b""],
    "half a head": [b"POST / HTTP/1.1\r\nhost: a\r\n"],
    "a head letter by letter": [bytes([one]) for one in b"POST / HTTP/1.1\r\nx: " + b"a" * 50],
    "half a body": [b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc"],
    "a chunked body without end": [
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        *[b"1\r\na\r\n"] * 50,
    ],
    "a second request that does not come": [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\nPOST /",
    ],
}


@pytest.mark.parametrize("name", SLOW)
def test_who_is_slow_is_let_go(name: str) -> None:
    """Each of them held its connection for as long as it liked."""

    async def slow(port: int) -> None:
        answer = await say(port, *SLOW[name], pause_s=0.05)
        # Who speaks on when he was told so does not hear it.
        assert b"408 Request Timeout" in answer or (not answer and len(SLOW[name]) > 1)

    act(slow)


def test_an_answer_that_nobody_reads_is_given_up() -> None:
    """A large answer read slowly kept its bytes for ever; another one is answered meanwhile."""

    async def slow() -> None:
        async with served() as (port, server):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
            quick = await say(port, b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert b"200 OK" in quick
            await until(lambda: not len(server._gate), "it to be given up")
            got = 0
            with contextlib.suppress(OSError):
                while part := await reader.read(1 << 20):
                    got += len(part)
            assert got < len(LARGE)
            writer.close()

    asyncio.run(slow())


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 3_000_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\n" + b"x: a\r\n" * 100_000 + b"\r\n",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
    ids=["a header of megabytes", "many headers", "a long address"],
)
def test_a_head_has_a_limit(head: bytes) -> None:
    """The siblings of a long body."""

    async def long(port: int) -> None:
        answer = await say(port, head)  # none when it was let go while it still spoke
        assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        again = await say(port, b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert again.startswith(b"HTTP/1.1 200")

    act(long)


def test_a_request_that_ends_in_two_ways_is_refused() -> None:
    """Content-Length beside Transfer-Encoding was taken: somebody before us may have read another
    request."""

    async def twice(port: int) -> None:
        both = b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        answer = await say(port, b"POST / HTTP/1.1\r\nhost: a\r\n" + both)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in answer

    act(twice)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"200"),
        (b"OPTIONS / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"405"),
        (b"BREW / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"405"),
        (b"GET /?a=%00&a=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"405"),
        (b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close, upgrade\r\n"
         b"upgrade: websocket\r\nsec-websocket-key: a\r\nsec-websocket-version: 13\r\n\r\n",
         b"200"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n"
         b"connection: close\r\n\r\nabc", b"415"),
    ],
)  # fmt: skip
def test_odd_requests_are_answered_by_the_book(request_: bytes, status: bytes) -> None:
    """What no partner of ours sends makes no mistake either."""

    async def odd(port: int) -> None:
        assert (await say(port, request_)).startswith(b"HTTP/1.1 " + status)

    act(odd, answer_s=10.0)


def test_expect_and_a_pipeline() -> None:
    """Who asks before the body is told to go on; requests in one piece are answered in order."""

    async def by_the_book(port: int) -> None:
        expecting = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n"
        answer = await say(port, expecting + b"connection: close\r\n\r\n", b"abc", pause_s=0.1)
        assert answer.startswith(b"HTTP/1.1 100")
        assert answer.endswith(b"abc")
        one = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n%02d"
        many = b"".join(one % number for number in range(50))
        answer = await say(port, many + b"POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nzz")
        assert answer.count(b"HTTP/1.1 200 OK") == 51
        assert answer.index(b"\r\n\r\n00") < answer.index(b"\r\n\r\n49")

    act(by_the_book, body_s=5.0)


@pytest.mark.fault("A19")
def test_a_connection_between_two_requests_is_kept_longer_than_clients_do() -> None:
    """It was closed after 5 s, as a client was sending the next request on it."""
    assert HttpSettings().idle_s == 75.0

    async def twice(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await clock.live_through(30.0)  # longer than a head or a body may take
        await clock.live_through(30.0)
        assert await reader.read() == b""  # and then it ends, without a word
        writer.close()

    with leaping() as clock:
        act(twice, idle_s=60.0)


@pytest.mark.fault("A14")
def test_nonsense_without_end_is_counted_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """527 malformed requests filled the pipe of the log, and the door of 112 stood still."""

    async def nonsense(port: int) -> None:
        for _ in range(600):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"no HTTP at all\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
            writer.close()

    act(nonsense, head_s=30.0)  # a machine with much to do may stand still for a while
    assert len(caplog.records) == 1


# -- the gate by itself ---------------------------------------------------------------------------


class Peer:
    """A connection that does nothing."""

    def __init__(self, peer: str, since: float, phase: Any = "head") -> None:
        self.peer = peer
        self.phase = phase
        self.since = since
        self.held = 0
        self.writing_since: float | None = None
        self.unsent = 0
        self.dropped: int | None = None

    def drop(self, status: int) -> None:
        self.dropped = status


def test_one_stranger_takes_no_place_of_another() -> None:
    """Neither by his own address, which makes its own room, nor from where nobody may call."""
    told: list[tuple[str, str]] = []
    settings = HttpSettings(connections_max=100, connections_per_address=60)
    gate = Gate(settings, lambda *what: told.append(what), lambda host: host != "x", 40)
    first = Peer("a", 0.0)
    partner = Peer("b", 0.0, "answer")
    assert gate.admit(first, 0.0)
    assert gate.admit(partner, 0.0)
    for number in range(200):
        assert gate.admit(Peer("a", 1.0 + number), 1.0 + number)
    assert first.dropped == 503
    assert partner.dropped is None
    assert len(gate) == 40
    strange = [Peer("x", 300.0 + number) for number in range(50)]
    assert all(gate.admit(one, one.since) for one in strange)
    assert sum(one.dropped is None for one in strange) == 16
    busy = [Peer("a", 400.0, "answer") for _ in range(100)]
    admitted = [gate.admit(one, 400.0) for one in busy]
    assert any(admitted)
    assert not all(admitted)  # who is being answered makes room for nobody
    assert {limit for limit, _ in told} == {"connections_max", "connections_per_address"}


def test_a_process_may_have_all_descriptors_it_is_given() -> None:
    """1,024 is what a shell gives, and not what a unit allows."""
    assert places() >= 8
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard or soft >= 65_536


def test_an_orderly_stop_waits_for_nobody_silent() -> None:
    """Silent connections do not hold up the end."""

    async def whole() -> None:
        async with door(head_s=30.0) as port:
            kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            began = time.monotonic()
        assert time.monotonic() - began < 4
        for _, writer in kept:
            writer.close()

    asyncio.run(whole())


def test_limits_are_settings_that_are_checked() -> None:
    """A limit that is none is a wrong setting."""
    for wrong in ({"head_s": 0}, {"connections_max": 1}, {"idle": 3}, {"bodies_bytes_max": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(wrong), type=HttpSettings)


@pytest.mark.fault("A14")
def test_refusals_without_end_are_not_told_to_the_bus_one_by_one() -> None:
    """The sibling behind the door: each of a flood of malformed requests was a message that the bus
    had to sync, and that lay in the administrator's queue."""

    def broken() -> list[Message]:
        raise BadInput("Card", "is required")

    async def nonsense(stage: Scene, bus: Bus) -> None:
        ingress = stage.connector.ingress
        door = Door(
            ingress, system="112", bytes_max=1, answer=lambda *_: b"", subject=lambda about: about
        )
        for number in range(1400):
            verdict = await door.take("UpdateCard", "", str(number).encode(), broken)
            assert verdict.status == 400
        assert ingress.rejected == 1400
        assert 1000 <= len(bus.accepted) < 1300

    play("sys112", nonsense)
