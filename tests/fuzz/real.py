"""A share of the inputs through real sockets: a router process by ZeroMQ, its ops socket, and the
doors of connectors by TCP."""

import asyncio
import contextlib
import logging
import os
import re
from itertools import count as numbers
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import uvloop
import zmq

from connectors.runtime.door.serving import HttpServer, bind
from proto import KeyPair, frames
from proto.message import Message
from tests.bench.machine import cpu_s, memory_mb
from tests.fuzz import doors, wire
from tests.fuzz.mutate import NOISE, mutated
from tests.fuzz.tally import Finding, Memory, Tally
from tests.fuzz.target import Lines, mistake, show
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
# Whoever gets so much wrong is barred for a time; here nearly all is wrong.
BUS: Final = "errors_max = 1_000_000_000"
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
PATIENCE_MS: Final = 60_000  # that nothing hangs; how long something takes is the processor's time
SLOW_S: Final = 1.0  # of the router's processor, for one frame sent alone
CALLERS: Final = 32  # connections at the same time
ANSWERS_S: Final = 0.2  # then it may wait for more, and is told that no more comes
CLOSES_S: Final = 60.0
STATUS: Final = re.compile(rb"^HTTP/1\.1 (\d\d\d)", re.MULTILINE)


def play_real(seed: int, inputs: int, folder: Path, only: str = "") -> Tally:
    """Play inputs through sockets: half to the bus, a quarter to its operator, a quarter by HTTP;
    or all of them to `only` one, which is how they are met again."""
    tally = Tally()
    if only in ("", "real.bus", "real.ops"):
        _Bus(seed, tally).play(
            inputs if only == "real.bus" else 0 if only else inputs // 2,
            inputs if only == "real.ops" else 0 if only else inputs // 4,
        )
    shapes: list[type[doors.DoorTarget]] = [
        one for one in doors.TARGETS if only in ("", f"real.{one.name}")
    ]
    if shapes:
        uvloop.run(_all_doors(seed, shapes, inputs if only else inputs // 4, folder, tally))
    return tally


# -- the router ---------------------------------------------------------------------------------


class _Bus:
    """A router, a peer that says odd things, an operator that asks odd things."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self._seed = seed
        self._tally = tally
        self._router = RouterProcess(
            peers=("producer", "good"), routes=ROUTES, permissions=PERMISSIONS, bus=BUS
        )

    def play(self, count: int, asked: int) -> None:
        """Play so many frames and so many questions."""
        router = self._router
        with router, contextlib.ExitStack() as stack:
            context: zmq.Context[Any] = stack.enter_context(zmq.Context())
            memory = Memory(memory_mb(router.pid, "VmRSS"))
            self._open(context)
            self._say_all(count)
            memory.warm = memory_mb(router.pid, "VmRSS")  # its queues are full
            self._ask_all(context, asked)
            memory.end = memory_mb(router.pid, "VmRSS")
            self._tally.memory["router"] = memory
            if wrong := router.ask("check")["wrong"]:
                self._found("real.bus", count, f"books of {wrong}", b"")
            code = router.stop()
            log = router.log.read_text(encoding="utf-8")
            if code or "Traceback" in log or "Error:" in log:
                self._found("real.bus", count, f"ended with {code}", log[-1500:])

    def _found(self, name: str, number: int, problem: str, shown: object) -> None:
        self._tally.note(Finding(name, self._seed, number, problem, show(shown)))

    def _open(self, context: Any) -> None:
        key = KeyPair.load(self._router.keys / "producer.key")
        server = (self._router.keys / "router.pub").read_bytes().strip()
        self._keys = key.public, key.secret, server
        self._context = context
        self._socket = self._connect()
        samples = wire.own() * 2 + wire.vectors("to_router")
        self._samples = [one for one in samples if one[0] != frames.BYE]
        self._new = numbers()

    def _connect(self) -> Any:
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.curve_publickey, dealer.curve_secretkey, dealer.curve_serverkey = self._keys
        dealer.connect(self._router.address)
        return dealer

    def _say_all(self, count: int) -> None:
        """Say all inputs; behind each window a PING must come back."""
        figures = self._tally.of("real.bus")
        for first in range(0, count, WINDOW):
            window = [self._frame(number) for number in range(first, min(first + WINDOW, count))]
            took_s = self._say(window)
            if took_s is None:
                self._found("real.bus", first, "no answer to PING", window)
                self._socket.close(0)
                self._socket = self._connect()
            elif took_s > SLOW_S:
                for number, parts in enumerate(window, first):
                    alone_s = self._say([parts])
                    if alone_s is not None and alone_s > SLOW_S:
                        self._found("real.bus", number, f"took {alone_s:.1f} s", parts)
            figures.inputs += len(window)
            figures.cpu_s += took_s or 0.0
            figures.worst_s = max(figures.worst_s, (took_s or 0.0) / len(window))
        self._socket.close(0)

    def _frame(self, number: int) -> list[bytes]:
        random = Random(f"{self._seed}:real.bus:{number}")
        verb, payload = random.choice(self._samples)
        if random.random() < 0.2:
            message = Message.new("any.x.v1", "producer", b"x", id=f"r{next(self._new)}")
            verb, payload = frames.PUBLISH, frames.encode(frames.Publish(number, [message]))
        payload = mutated("msgpack", (payload,), random)
        return [verb, payload] if random.random() < 0.99 else [verb, payload, payload]

    def _say(self, window: list[list[bytes]]) -> float | None:
        """Return what it took of the router's processor; None: no answer."""
        began = cpu_s(self._router.pid)
        for parts in window:
            self._socket.send_multipart(parts)
        nonce = 2**40 + next(self._new)
        hello = frames.encode(frames.Hello([1], "producer"))
        self._socket.send_multipart([frames.HELLO, hello])  # a frame may have ended the session
        self._socket.send_multipart([frames.PING, frames.encode(frames.Ping(nonce))])
        figures = self._tally.of("real.bus")
        while self._socket.poll(PATIENCE_MS):
            parts = self._socket.recv_multipart()
            payload = frames.read(parts, frames.PEER_READS)
            if parts[0] == frames.PONG and payload == frames.Ping(nonce):
                return cpu_s(self._router.pid) - began
            if parts[0] == frames.PING:  # so many bytes are read: else it would be let go
                self._socket.send_multipart([frames.PONG, parts[1]])
            figures.answers[parts[0].decode()] += 1
        return None

    def _ask_all(self, context: Any, count: int) -> None:
        asker = context.socket(zmq.DEALER)
        asker.setsockopt(zmq.LINGER, 0)
        asker.connect(self._router.ops)
        figures = self._tally.of("real.ops")
        for first in range(0, count, WINDOW):
            size = min(WINDOW, count - first)
            began = cpu_s(self._router.pid)
            for number in range(first, first + size):
                asker.send_multipart([b"%d" % number, b"", self._question(number)])
            for _ in range(size):
                if not asker.poll(PATIENCE_MS):
                    self._found("real.ops", first, "no answer", b"")
                    break
                number_told, _, answer = asker.recv_multipart()
                number, told = int(number_told), msgspec.json.decode(answer)
                figures.answers["ok" if told["ok"] else told["code"]] += 1
                if not told["ok"] and told["code"] == "failed":
                    problem = f"failed: {told['sentence']}"
                    self._found("real.ops", number, problem, self._question(number))
            took_s = cpu_s(self._router.pid) - began
            figures.inputs += size
            figures.cpu_s += took_s
            figures.worst_s = max(figures.worst_s, took_s / size)
        asker.close(0)

    def _question(self, number: int) -> bytes:
        return mutated("json", OPS, Random(f"{self._seed}:real.ops:{number}"))


# -- doors --------------------------------------------------------------------------------------


async def _all_doors(
    seed: int, shapes: list[type[doors.DoorTarget]], inputs: int, folder: Path, tally: Tally
) -> None:
    lines = Lines(mistake())
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.WARNING)
    memory = tally.memory["doors"] = Memory(memory_mb(os.getpid(), "VmRSS"))
    for shape in shapes:
        await _Door(shape, seed, folder, tally, lines).play(inputs // len(shapes))
        memory.warm = memory.warm or memory_mb(os.getpid(), "VmRSS")
    memory.end = memory_mb(os.getpid(), "VmRSS")


class _Door:
    """One door behind its real server, called by raw TCP: what is said may be no HTTP at all."""

    def __init__(
        self, shape: type[doors.DoorTarget], seed: int, folder: Path, tally: Tally, lines: Lines
    ) -> None:
        self._door = shape()
        self._name = f"real.{shape.name}"
        self._seed = seed
        self._folder = folder / shape.name
        self._tally = tally
        self._lines = lines

    async def play(self, count: int) -> None:
        """Serve it and call it."""
        self._folder.mkdir()
        await self._door.open(self._folder)
        self._port = free_port()
        self._numbers = iter(range(count))
        server = HttpServer(self._door.app, bind(f"127.0.0.1:{self._port}", "fuzz"))
        await server.start()
        began = cpu_s(os.getpid())
        try:
            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLERS):
                    callers.create_task(self._call())
        finally:
            await server.stop()
            await self._door.close()
        self._tally.of(self._name).cpu_s += cpu_s(os.getpid()) - began
        for line in self._lines.found:
            self._found(count - 1, line[:200], b"")
        self._lines.found.clear()

    async def _call(self) -> None:
        figures = self._tally.of(self._name)
        batch: dict[int, bytes] = {}
        for number in self._numbers:
            is_framed, batch[number] = self._request(number)
            if is_framed:
                continue  # the next one comes on the same connection, without waiting
            statuses = await self._ask(b"".join(batch.values()))
            told = [int(one) for one in statuses[: len(batch)]]
            for one, status in zip(batch, told, strict=False):
                figures.answers[f"{status}"] += 1
                if status >= 500 and status not in self._door.allowed_5xx:
                    self._found(one, f"HTTP {status}", batch[one])
            if len(batch) > len(told):
                figures.answers["none"] += len(batch) - len(told)
            figures.inputs += len(batch)
            batch = {}
        figures.inputs += len(batch)
        if batch:
            await self._ask(b"".join(batch.values()))

    def _found(self, number: int, problem: str, shown: object) -> None:
        self._tally.note(Finding(self._name, self._seed, number, problem, show(shown)))

    def _request(self, number: int) -> tuple[bool, bytes]:
        """Return a request, and whether it ends where it says, so that another may follow."""
        random = Random(f"{self._seed}:{self._name}:{number}")
        method, path, body = random.choice(self._door.requests)
        change = random.randrange(6)
        if change >= 3:
            body = mutated(self._door.kind, (body,), random)
        known = random.random() < doors.KNOWN
        headers = [*self._door.headers(random, known), (b"host", b"door"),
                   (b"content-length", str(len(body)).encode())]  # fmt: skip
        head = f"{method} {path} HTTP/1.1\r\n".encode()
        for header, value in headers:
            plain = value.translate(None, b"\0\r\n").strip()
            head += header + b": " + plain + b"\r\n"
        match change:
            case 0:
                return False, mutated("lines", (head,), random) + b"\r\n" + body
            case 1:
                return False, mutated("bytes", (head + b"\r\n" + body,), random)
            case 2:
                odd = random.choice(NOISE)
                return False, head + b"x-odd: " + odd + b"\r\n\r\n" + body
            case _:
                return True, head + b"\r\n" + body

    async def _ask(self, said: bytes) -> list[bytes]:
        """Return the statuses of all answers."""
        heard = bytearray()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return []
        try:
            writer.write(said)
            with contextlib.suppress(TimeoutError):
                while piece := await asyncio.wait_for(reader.read(65536), ANSWERS_S):
                    heard += piece
            if not reader.at_eof():
                writer.write_eof()
                while piece := await asyncio.wait_for(reader.read(65536), CLOSES_S):
                    heard += piece
        except OSError:
            pass  # it was closed with something unread, which is how a server says no
        finally:
            writer.transport.abort()
        return STATUS.findall(bytes(heard))
