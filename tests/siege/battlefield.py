"""What every attacker has in hand: addresses, keys, the time that is left, and bad manners."""

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import zmq

from proto import KeyPair, frames
from proto.message import now_ms

FROM: Final = "127.0.0.2"  # where attackers of HTTP and TCP call from
KEPT_MS: Final = 5_000  # what nobody takes expires so soon
Function = TypeVar("Function", bound=Callable[..., None])


def attack(function: Function) -> Function:
    """Mark what `python -m tests.siege.attacker` can run."""
    function.attacks = True  # type: ignore[attr-defined]
    return function


@dataclass
class Field:
    """Addresses, and what was done."""

    folder: Path
    ports: dict[str, int]
    token: str
    connectors: tuple[str, ...]
    ends: float
    done: Counter[str] = field(default_factory=Counter)

    @property
    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.ends

    def doors(self) -> list[tuple[str, int]]:
        """Return the HTTP doors of the connectors that run: name and port."""
        return [(name, self.ports[f"{name}_door"]) for name in self.connectors]

    @property
    def bus(self) -> str:
        """Where the router listens for local peers."""
        return f"ipc://{self.folder}/bus.sock"


class Peer:
    """A socket of libzmq with a key and no manners."""

    context: "zmq.Context[Any]" = zmq.Context()
    numbers: Iterator[int] = count(time.time_ns())

    def __init__(self, place: Field, name: str = "villain", *, hwm: int = 4,
                 routing_id: bytes = b"", greet: bool = True) -> None:  # fmt: skip
        self.place = place
        self.name = name
        keys = place.folder / "keys"
        pair = KeyPair.load(keys / f"{name}.key")
        self.socket = self.context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, hwm), (zmq.RCVHWM, 2),
                              (zmq.SNDTIMEO, 200), (zmq.RCVTIMEO, 200)):  # fmt: skip
            self.socket.setsockopt(option, value)
        if routing_id:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        self.socket.curve_publickey, self.socket.curve_secretkey = pair.public, pair.secret
        self.socket.curve_serverkey = (keys / "router.pub").read_bytes().strip()
        self.socket.connect(place.bus)
        if greet:
            self.greet()

    def greet(self) -> None:
        """Say HELLO."""
        self.say(frames.HELLO, frames.encode(frames.Hello([1], self.name)))

    def say(self, verb: bytes, payload: bytes) -> bool:
        """Return whether it left within the time."""
        try:
            self.socket.send_multipart([verb, payload], copy=False)
        except zmq.Again:
            return False
        self.place.done[verb.decode("ascii", "replace")] += 1
        return True

    def credit(self, destination: str, window: int) -> None:
        """Ask for deliveries."""
        self.say(frames.CREDIT, frames.encode(frames.Credit(destination, window)))

    def publish(self, messages: list[Any]) -> bool:
        """Say PUBLISH of whatever these are."""
        return self.say(frames.PUBLISH, msgspec.msgpack.encode([next(self.numbers), messages]))

    def message(self, type: str, body: bytes, *, priority: int = 2, subject: str = "",
                kept_ms: int = KEPT_MS) -> list[Any]:  # fmt: skip
        """Return a message as it goes onto the wire."""
        now = now_ms()
        head = [str(next(self.numbers)), type, self.name, subject, now, priority, None]
        return [*head, now + kept_ms, None, None, None, "application/octet-stream", body]

    def hear(self, wait: bool = False) -> Any:
        """Return the next payload that is no PING (which is answered), or None."""
        while True:
            try:
                parts = self.socket.recv_multipart(0 if wait else zmq.DONTWAIT)
            except zmq.Again:
                return None
            if parts[0] == frames.PING:
                self.say(frames.PONG, parts[1])
                continue
            if parts[0] == frames.ERROR and b"hello_required" in parts[1]:
                self.greet()
            return frames.read(parts, frames.PEER_READS)

    def drain(self, most: int = 1000) -> None:
        """Hear what there is."""
        for _ in range(most):
            if self.hear() is None:
                return


def connect(port: int, bulk: Counter[str]) -> socket.socket | None:
    """Return a TCP connection to a port of this machine that does not block, None when there is
    none to be had."""
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    channel.setblocking(False)
    try:
        channel.bind((FROM, 0))
        status = channel.connect_ex(("127.0.0.1", port))
    except OSError as error:
        bulk[errno.errorcode.get(error.errno or 0, "error")] += 1
        channel.close()
        return None
    if status not in (0, errno.EINPROGRESS):
        bulk[errno.errorcode.get(status, "error")] += 1
        channel.close()
        return None
    bulk["connections"] += 1
    return channel


def send(channel: socket.socket, data: bytes) -> bool:
    """Return whether the connection still lives."""
    try:
        channel.send(data)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def is_over(channel: socket.socket) -> bool:
    """Return whether the other side has ended the connection; what it says is thrown away."""
    try:
        return channel.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno != errno.ENOTCONN
