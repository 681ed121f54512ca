"""Attacks of a local user on the operator's socket and the events."""

import socket
import time
from typing import Any, Final

import msgspec
import zmq

from proto import frames
from tests.siege.battlefield import Field, Peer, attack, is_over, send
from tests.siege.busattacks import GREETING, MEGABYTE

CROWD: Final = 700
LETTERS: Final = 4000
LETTER_BYTES: Final = 50_000


@attack
def ops_unfinished(place: Field) -> None:
    """Connections to the operator's socket that never finish their greeting."""
    held: list[socket.socket] = []
    while place.goes_on:
        for channel in [one for one in held if is_over(one)]:
            held.remove(channel)
            channel.close()
        for _ in range(min(50, CROWD - len(held))):
            channel = socket.socket(socket.AF_UNIX)
            channel.setblocking(False)
            try:
                channel.connect(f"{place.folder}/ops.sock")
            except OSError:
                channel.close()
                time.sleep(0.01)
                continue
            send(channel, GREETING[: place.done["connections"] % len(GREETING)])
            place.done["connections"] += 1
            held.append(channel)
        time.sleep(0.1)


def _asker(place: Field, name: str = "ops") -> Any:
    asker = Peer.context.socket(zmq.DEALER)
    asker.setsockopt(zmq.LINGER, 0)
    asker.setsockopt(zmq.SNDHWM, 20)
    asker.connect(f"ipc://{place.folder}/{name}.sock")
    return asker


def _question(command: str, **fields: object) -> list[bytes]:
    return [b"", msgspec.json.encode({"command": command, **fields})]


@attack
def ops_questions(place: Field) -> None:
    """Many who ask without pause and never read an answer."""
    askers = [_asker(place) for _ in range(30)]
    commands = ("status", "queues", "sessions", "partners", "metrics", "check", "nonsense")
    while place.goes_on:
        for number, asker in enumerate(askers):
            try:
                asker.send_multipart(_question(commands[number % len(commands)]), zmq.DONTWAIT)
                place.done["questions"] += 1
            except zmq.Again:
                pass
        time.sleep(0.02)


@attack
def ops_dead_letters(place: Field) -> None:
    """Thousands of big dead letters, and then the question for all of them, again and again."""
    peer, taker = Peer(place, hwm=20), Peer(place, hwm=1000)
    taker.credit("grave", 1000)
    half = time.monotonic() + (place.ends - time.monotonic()) / 2
    body = MEGABYTE[:LETTER_BYTES]
    while time.monotonic() < half:
        if place.done["letters"] < LETTERS:
            letters = [peer.message("grave.letter.v1", body, kept_ms=3_600_000) for _ in range(20)]
            place.done["letters"] += 20 * peer.publish(letters)
        peer.drain()
        while isinstance(heard := taker.hear(), frames.Deliver):
            rejected = [frames.Settlement(one.delivery, frames.REJECT) for one in heard.deliveries]
            taker.say(frames.SETTLE, frames.encode(frames.Settle(rejected)))
        time.sleep(0.01)
    askers = [_asker(place) for _ in range(4)]
    while place.goes_on:
        for asker in askers:
            try:
                asker.send_multipart(_question("dead"), zmq.DONTWAIT)
                place.done["questions"] += 1
                while True:
                    place.done["bytes"] += len(asker.recv_multipart(zmq.DONTWAIT)[-1])
            except zmq.Again:
                pass
        time.sleep(0.05)


@attack
def events_noise(place: Field) -> None:
    """Stray words and subscriptions without end on the events socket, and nothing is read."""
    words: Any = Peer.context.socket(zmq.XSUB)
    words.setsockopt(zmq.LINGER, 0)
    words.setsockopt(zmq.SNDHWM, 100)
    words.setsockopt(zmq.RCVHWM, 1)
    words.connect(f"ipc://{place.folder}/events.sock")
    number = 0
    while place.goes_on:
        for _ in range(20):
            number += 1
            try:
                words.send(b"\x01" + b"topic%d" % (number % 5000), zmq.DONTWAIT)
                words.send(b"stray words", zmq.DONTWAIT)
                words.send(b"\x01", zmq.DONTWAIT)
            except zmq.Again:
                pass
        place.done["words"] = number
        time.sleep(0.01)
