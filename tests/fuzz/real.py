"""A share of the inputs through real sockets: a router process by ZeroMQ, its ops socket, and the
doors of connectors by TCP."""

import asyncio
import contextlib
import socket
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import zmq

from connectors.runtime.serving import HttpServer, bind
from proto import KeyPair, frames
from proto.message import Message
from tests.bench.machine import memory_mb
from tests.fuzz import doors, wire
from tests.fuzz.campaign import Finding, Player, Tally
from tests.fuzz.mutate import NOISE, mutated
from tests.fuzz.target import show
from tests.integration.bus import RouterProcess
from tests.ports import free_port

ROUTES: Final = (
    '[destinations.sink]\n[destinations.fuzz]\nopen_max = 2000\n'
    '[[routes]]\ntype = "test.*"\nto = ["sink"]\n[[routes]]\ntype = "*"\nto = ["fuzz"]\n'
)  # fmt: skip
PERMISSIONS: Final = (
    '[peers.producer]\npublish = ["*"]\nask = ["*"]\nconsume = ["fuzz"]\nserve = ["*"]\n'
    '[peers.good]\npublish = ["test.*"]\nconsume = ["sink"]\n'
)
OPS: Final = tuple(
    msgspec.json.encode({"command": command, **fields})
    for command, fields in (
        ("status", {}), ("queues", {}), ("sessions", {}), ("partners", {}), ("versions", {}),
        ("check", {}), ("metrics", {}), ("trace", {"subject": "s", "number": "1"}),
        ("dead", {"destination": "sink", "type": "test.*"}), ("replay", {"delivery": 1}),
        ("drop", {"delivery": 1}), ("hold", {"destination": "fuzz", "reason": "r"}),
        ("release", {"destination": "fuzz"}), ("find", {"delivery": 5}),
    )
)  # fmt: skip
WINDOW: Final = 200  # frames under way
PATIENCE_MS: Final = 10_000
GROWTH_MB: Final = 150.0  # of a router whose queue of 2,000 fills meanwhile
DOORS: Final = (doors.Sys112Door, doors.SmpDoor, doors.RmisDoor, doors.ExternalDoor)


def play_real(seed: int, inputs: int) -> Tally:
    """Play inputs through sockets: half to the bus, a quarter to its operator, a quarter by HTTP.
    They cannot be met again alone: the seed plays all of them."""
    tally = Tally()
    _bus(seed, inputs // 2, inputs // 4, tally)
    folder = Path(tempfile.mkdtemp(prefix="smpbus-fuzz-", dir="/tmp"))
    for door in DOORS:
        asyncio.run(_Http(seed, folder, tally).play(door, inputs // 4 // len(DOORS)))
    return tally


def _found(tally: Tally, name: str, seed: int, number: int, problem: str, shown: object) -> None:
    tally.note(Finding(name, seed, number, problem, show(shown)))


# -- the router ---------------------------------------------------------------------------------


def _bus(seed: int, count: int, asked: int, tally: Tally) -> None:
    began = time.monotonic()
    router = RouterProcess(peers=("producer", "good"), routes=ROUTES, permissions=PERMISSIONS)
    with router, contextlib.ExitStack() as stack:
        context: zmq.Context[Any] = stack.enter_context(zmq.Context())
        _Wire(router, context, seed, tally).play(count)
        tally.by_target["real.bus"] = (count, time.monotonic() - began)
        began = time.monotonic()
        before_mb = memory_mb(router.pid, "VmRSS")
        _ops(router, context, seed, asked, tally)
        tally.by_target["real.ops"] = (asked, time.monotonic() - began)
        grown_mb = memory_mb(router.pid, "VmRSS") - before_mb
        if grown_mb > GROWTH_MB:
            _found(tally, "real.ops", seed, asked, f"the router grew by {grown_mb:.0f} MB", b"")
        if wrong := router.ask("check")["wrong"]:
            _found(tally, "real.bus", seed, count, f"books of {wrong}", b"")
        code = router.stop()
        log = router.log.read_text(encoding="utf-8")
        if code or "Traceback" in log or "Error:" in log:
            _found(tally, "real.bus", seed, count, f"ended with {code}", log[-1500:])


class _Wire:
    """A peer that says odd things, and hears that the router goes on answering."""

    def __init__(self, router: RouterProcess, context: Any, seed: int, tally: Tally) -> None:
        self._router = router
        self._context = context
        self._seed = seed
        self._tally = tally
        key = KeyPair.load(router.keys / "producer.key")
        server = (router.keys / "router.pub").read_bytes().strip()
        self._keys = key.public, key.secret, server
        self._socket = self._connect()

    def _connect(self) -> Any:
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.curve_publickey, dealer.curve_secretkey, dealer.curve_serverkey = self._keys
        dealer.connect(self._router.address)
        dealer.send_multipart([frames.HELLO, frames.encode(frames.Hello([1], "producer"))])
        return dealer

    def play(self, count: int) -> None:
        """Say all inputs; now and then a PING must come back."""
        samples = wire.own() * 2 + wire.vectors("to_router")
        samples = [one for one in samples if one[0] != frames.BYE]
        new = [0]
        for number in range(count):
            random = Random(f"{self._seed}:real.bus:{number}")
            verb, payload = random.choice(samples)
            if random.random() < 0.2:
                new[0] += 1
                message = Message.new("any.x.v1", "producer", b"x", id=f"r{new[0]}")
                verb, payload = frames.PUBLISH, frames.encode(frames.Publish(number, [message]))
            payload = mutated("msgpack", (payload,), random)
            parts = [verb, payload] if random.random() < 0.99 else [verb, payload, payload]
            self._tally.inputs += 1
            self._socket.send_multipart(parts)
            if number % WINDOW == 0 and not self._answers(number):
                shown = [verb, payload]
                _found(self._tally, "real.bus", self._seed, number, "no answer to PING", shown)
                self._socket.close(0)
                self._socket = self._connect()
        self._socket.close(0)

    def _answers(self, number: int) -> bool:
        nonce = 2**40 + number
        hello = frames.encode(frames.Hello([1], "producer"))
        self._socket.send_multipart([frames.HELLO, hello])  # a frame may have ended the session
        self._socket.send_multipart([frames.PING, frames.encode(frames.Ping(nonce))])
        while self._socket.poll(PATIENCE_MS):
            parts = self._socket.recv_multipart()
            payload = frames.read(parts, frames.PEER_READS)
            if parts[0] == frames.PONG and payload == frames.Ping(nonce):
                return True
        return False


def _ops(router: RouterProcess, context: Any, seed: int, count: int, tally: Tally) -> None:
    asker = context.socket(zmq.DEALER)
    asker.setsockopt(zmq.LINGER, 0)
    asker.connect(router.ops)
    for first in range(0, count, WINDOW):
        size = min(WINDOW, count - first)
        for number in range(first, first + size):
            random = Random(f"{seed}:real.ops:{number}")
            question = mutated("json", OPS, random)
            asker.send_multipart([b"%d" % number, b"", question])
        tally.inputs += size
        for _ in range(size):
            if not asker.poll(PATIENCE_MS):
                _found(tally, "real.ops", seed, first, "no answer", b"")
                break
            *address, answer = asker.recv_multipart()
            told = msgspec.json.decode(answer)
            if not told["ok"] and told["code"] == "failed":
                number = int(address[0])
                asked = mutated("json", OPS, Random(f"{seed}:real.ops:{number}"))
                _found(tally, "real.ops", seed, number, f"failed: {told['sentence']}", asked)
    asker.close(0)


# -- doors --------------------------------------------------------------------------------------


class _Http(Player):
    """One door behind its real server, called by raw TCP: what is said may be no HTTP at all."""

    def __init__(self, seed: int, folder: Path, tally: Tally) -> None:
        super().__init__(seed, folder)
        self.tally = tally

    async def play(self, shape: type[doors.DoorTarget], count: int) -> None:  # type: ignore[override]
        """Serve it and call it."""
        began = time.monotonic()
        door = shape()
        folder = self._folder / shape.name
        folder.mkdir()
        await door.open(folder)
        port = free_port()
        server = HttpServer(door._app, bind(f"127.0.0.1:{port}", "fuzz"))
        await server.start()
        try:
            await asyncio.to_thread(self._call, door, shape, port, count)
        finally:
            await server.stop()
            await door.close()
        name = f"real.{shape.name}"
        self.tally.by_target[name] = (count, time.monotonic() - began)

    def _call(
        self, door: doors.DoorTarget, shape: type[doors.DoorTarget], port: int, count: int
    ) -> None:
        name = f"real.{shape.name}"
        for number in range(count):
            random = Random(f"{self._seed}:{name}:{number}")
            self.tally.inputs += 1
            request = _request(door, random)
            answer = _ask(port, request)
            if answer[9:10] == b"5" and answer[9:12] != b"503":
                _found(self.tally, name, self._seed, number,
                       f"HTTP {answer[9:12].decode()}", request)  # fmt: skip


def _request(door: doors.DoorTarget, random: Random) -> bytes:
    method, path, body = random.choice(door._samples)
    headers = [*door.headers(random), (b"host", b"door"), (b"connection", b"close"),
               (b"content-length", str(len(body)).encode())]  # fmt: skip
    head = f"{method} {path} HTTP/1.1\r\n".encode()
    for header, value in headers:
        head += header + b": " + value.replace(b"\n", b" ").replace(b"\r", b" ") + b"\r\n"
    match random.randrange(4):
        case 0:
            return mutated("lines", (head,), random) + b"\r\n" + body
        case 1:
            return mutated("bytes", (head + b"\r\n" + body,), random)
        case 2:
            odd = random.choice(NOISE)
            return head + b"x-odd: " + odd + b"\r\n\r\n" + body
        case _:
            return head + b"\r\n" + mutated("json", (body,), random)


def _ask(port: int, request: bytes) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 5.0) as channel:
            channel.settimeout(0.5)
            channel.sendall(request)
            channel.shutdown(socket.SHUT_WR)
            return channel.recv(200)
    except OSError:
        return b""
