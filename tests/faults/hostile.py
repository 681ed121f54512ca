"""One hostile peer with a key, as a process: `python hostile.py ATTACK FOLDER NAME SECONDS`.

It says what a peer may say, only without end or without reading; nothing here is malformed.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq

from proto import KeyPair, frames

MIB = 1024 * 1024
encode = msgspec.msgpack.encode


def message(name: str, number: int, body: bytes, type: str = "hostile.message.v1") -> list[object]:
    tail = [3, None, None, None, None, None, "application/json", body]
    return [f"{time.monotonic_ns()}-{number}", type, name, "", 1, *tail]


class Hostile:
    """Sockets of one name that connect, greet, and then do as the attack says."""

    def __init__(self, folder: Path, name: str, seconds: float) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.name = name
        self.key = KeyPair.load(folder / "keys" / f"{name}.key")
        self.server = (folder / "keys" / "router.pub").read_bytes().strip()
        self.address = f"ipc://{folder}/bus.sock"
        self.over_at = time.monotonic() + seconds

    def connect(self, unread_max: int = 1) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, unread_max)
        socket.setsockopt(zmq.SNDHWM, 2)
        socket.setsockopt(zmq.SNDTIMEO, 200)
        socket.curve_publickey, socket.curve_secretkey = self.key.public, self.key.secret
        socket.curve_serverkey = self.server
        socket.connect(self.address)
        self.say(socket, frames.HELLO, [[1], self.name])
        return socket

    def say(self, socket: "zmq.Socket[bytes]", verb: bytes, payload: object) -> None:
        try:
            socket.send_multipart(
                [verb, payload if isinstance(payload, bytes) else encode(payload)]
            )
        except zmq.Again:
            return

    def turns(self) -> Iterator[int]:
        number = 0
        while time.monotonic() < self.over_at:
            yield number
            number += 1

    def hear(self, socket: "zmq.Socket[bytes]") -> Iterator[tuple[bytes, bytes]]:
        while socket.poll(0):
            verb, payload = socket.recv_multipart()
            if verb == frames.PING:
                self.say(socket, frames.PONG, payload)
            yield verb, payload

    def large(self) -> None:
        """Frames of fifteen bodies of a megabyte, from four connections."""
        body = b"x" * (MIB - 1024)
        sockets = [self.connect(1000) for _ in range(4)]
        for number in self.turns():
            socket = sockets[number % 4]
            batch = [message(self.name, i, body) for i in range(15)]
            self.say(socket, frames.PUBLISH, [number, batch])
            for _ in self.hear(socket):
                pass

    def invalid(self) -> None:
        """Frames of 4,096 messages that it has no right to publish, from four connections."""
        sockets = [self.connect(1000) for _ in range(4)]
        payload = encode([1, [message(self.name, i, b"", "forbidden.v1") for i in range(4096)]])
        for number in self.turns():
            self.say(sockets[number % 4], frames.PUBLISH, payload)
            for socket in sockets:
                for _ in self.hear(socket):
                    pass
            if number % 100 == 99:
                sockets[number % 4].close(0)
                sockets[number % 4] = self.connect(1000)

    def greets(self) -> None:
        """HELLO and CREDIT over and over, never reading a delivery."""
        sockets = [self.connect() for _ in range(20)]
        for number in self.turns():
            socket = sockets[number % 20]
            self.say(socket, frames.HELLO, [[1], self.name])
            self.say(socket, frames.CREDIT, ["trap", 100_000])
            time.sleep(0.001)

    def retries(self) -> None:
        """Every delivery given back at once, without pause."""
        socket = self.connect(1000)
        self.say(socket, frames.CREDIT, ["trap", 4000])
        for _ in self.turns():
            for verb, payload in self.hear(socket):
                if verb == frames.DELIVER:
                    taken = msgspec.msgpack.decode(payload)[1]
                    back = [[one[0], frames.RETRY, 0, None] for one in taken]
                    self.say(socket, frames.SETTLE, [back])
                if time.monotonic() > self.over_at:
                    break

    def replies(self) -> None:
        """Questions to itself, whose answers of 15 MB it never reads."""
        server, asker = self.connect(1000), self.connect()
        self.say(server, frames.CREDIT, ["trap", 1])
        body = b"x" * 15 * MIB
        for number in self.turns():
            question = message(self.name, number, b"")
            self.say(asker, frames.REQUEST, [number, "trap", 60_000, question])
            server.poll(50)
            for verb, payload in self.hear(server):
                if verb == frames.REQUEST:
                    asked = msgspec.msgpack.decode(payload)[0]
                    reply = [asked, "", "", "application/json", body]
                    self.say(server, frames.REPLY, reply)


def main() -> None:
    """Run one attack."""
    attack, folder, name, seconds = sys.argv[1:]
    hostile = Hostile(Path(folder), name, float(seconds))
    print("begun", flush=True)
    work: Callable[[], None] = getattr(hostile, attack)
    work()
    hostile.context.destroy(0)


if __name__ == "__main__":
    main()
