"""Attacks on the HTTP doors of the connectors and on the router's page, all of them at once."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from random import Random
from typing import Final

from connectors.simulators.demo.callers import token_of
from tests.siege.battlefield import Field, attack, connect, is_over, send

PATHS: Final = {
    "sys112": (b"PUT", b"/112/cards/112-1"),
    "smp": (b"POST", b"/bus/status"),
    "rmis": (b"POST", b"/rmis/changes"),
    "external": (b"POST", b"/external/calls"),
    "remd": (b"POST", b"/remd"),
    "vimis": (b"POST", b"/vimis"),
}
SLOW: Final = 150  # connections to each door
SILENT: Final = 1100
PAGE: Final = 700
CHUNK: Final = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
CHUNKS: Final = 60  # some 480 KB: below every door's limit of a body
TURN_S: Final = 0.25
Step = Callable[[int], bytes]  # what is said in a turn


def _head(place: Field, name: str, rest: bytes) -> bytes:
    method, path = PATHS[name]
    kind = b"text/xml" if name in ("remd", "vimis") else b"application/json"
    own = token_of(place.folder, name)  # the worst comes from within
    token = own.read_bytes() if own.exists() else place.token.encode()
    return (
        b"%s %s HTTP/1.1\r\nhost: door\r\ncontent-type: %s\r\nauthorization: Bearer %s\r\n"
        b"idempotency-key: k\r\n%s" % (method, path, kind, token, rest)
    )  # fmt: skip


class Crowd:
    """Connections to one port, kept at `most`; each says something in each of its turns."""

    def __init__(self, place: Field, port: int, most: int, step: Step) -> None:
        self._place = place
        self._port = port
        self._most = most
        self._step = step
        self._held: list[list[object]] = []  # socket, number of the turn

    def turn(self) -> None:
        """Let each say its next word; open anew what was ended."""
        kept = []
        for one in self._held:
            channel, number = one
            assert isinstance(channel, socket.socket)
            assert isinstance(number, int)
            if is_over(channel):
                self._place.done["ended by the door"] += 1
                channel.close()
                continue
            words = self._step(number)
            if words and not send(channel, words):
                channel.close()
                continue
            one[1] = number + 1
            kept.append(one)
        self._held = kept
        for _ in range(min(100, self._most - len(kept))):
            channel = connect(self._port, self._place.done)
            if channel is not None:
                self._held.append([channel, 0])


def _besiege(place: Field, crowds: list[Crowd], turn_s: float = TURN_S) -> None:
    while place.goes_on:
        began = time.monotonic()
        for crowd in crowds:
            crowd.turn()
        time.sleep(max(0.0, turn_s - (time.monotonic() - began)))


def _letters(words: bytes) -> Step:
    """Say `words` letter by letter, then nothing; the first turn only connects."""
    return lambda number: words[number - 1 : number] if number else b""


@attack
def slow_heads(place: Field) -> None:
    """Heads that come a letter at a time."""
    crowds = [
        Crowd(place, port, SLOW, _letters(_head(place, name, b"x-slow: " + b"a" * 100_000)))
        for name, port in place.doors()
    ]
    _besiege(place, crowds)


@attack
def slow_bodies(place: Field) -> None:
    """Bodies that come a letter at a time."""

    def step(head: bytes) -> Step:
        return lambda number: head if number == 1 else b" " if number else b""

    crowds = [
        Crowd(place, port, SLOW, step(_head(place, name, b"content-length: 100000\r\n\r\n")))
        for name, port in place.doors()
    ]
    _besiege(place, crowds)


@attack
def endless_chunks(place: Field) -> None:
    """Chunked bodies that stay just below the limit and never end."""

    def step(head: bytes) -> Step:
        def words(number: int) -> bytes:
            if number == 0:
                return b""
            return head if number == 1 else CHUNK * 4 if number < CHUNKS // 4 else b""

        return words

    head = b"transfer-encoding: chunked\r\n\r\n"
    crowds = [
        Crowd(place, port, 2 * SLOW, step(_head(place, name, head))) for name, port in place.doors()
    ]
    _besiege(place, crowds)


@attack
def silent_connections(place: Field) -> None:
    """1,100 connections to each door that say nothing."""
    _besiege(place, [Crowd(place, port, SILENT, lambda _: b"") for _, port in place.doors()])


@attack
def page_unfinished(place: Field) -> None:
    """The router's page: GETs that are never finished."""
    words = b"GET /metrics HTTP/1.1\r\nhost: page\r\nx-slow: "
    step: Step = lambda number: words if number == 1 else b"a" if number else b""  # noqa: E731
    _besiege(place, [Crowd(place, place.ports["page"], PAGE, step)])


@attack
def page_questions(place: Field) -> None:
    """The router's page, asked by many without pause, and no answer is read."""
    words = b"GET /metrics HTTP/1.1\r\nhost: page\r\n\r\n"
    step: Step = lambda number: words if number else b""  # noqa: E731
    _besiege(place, [Crowd(place, place.ports["page"], 50, step)], 0.1)


def _malformed(place: Field, name: str, random: Random) -> Iterator[bytes]:
    """Yield requests that break the contract, or HTTP itself, in one way or another."""
    method, path = PATHS[name]
    while True:
        noise = os.urandom(random.randrange(200))
        for body in (b"{", b"[]", b"null", b"{}", noise, b'{"a":' * 200, b"<a/>", b"<a><b></a>"):
            yield _head(place, name, b"content-length: %d\r\n\r\n" % len(body)) + body
        yield b"%s %s HTTP/9.9\r\n\r\n" % (method, path)
        yield noise + b"\r\n\r\n"
        yield b"%s /%s HTTP/1.1\r\nhost: door\r\n\r\n" % (method, noise.hex().encode() * 10)
        yield _head(place, name, b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n")
        yield _head(place, name, b"content-length: -1\r\n\r\n")
        yield _head(place, name, b"x: " + b"y" * 100_000 + b"\r\n\r\n")
        yield _head(place, name, b"x: y\r\n" * 2000 + b"\r\n")
        yield _head(place, name, b"content-length: 99999999999\r\n\r\n")


@attack
def malformed(place: Field) -> None:
    """Malformed requests by the thousand at every door."""
    random = Random(2)
    kinds = [(port, _malformed(place, name, random)) for name, port in place.doors()]
    for port, requests in cycle(kinds):
        if not place.goes_on:
            return
        for _ in range(5):
            _ask(port, next(requests), place)


def _ask(port: int, request: bytes, place: Field) -> None:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0, ("127.0.0.2", 0)) as channel:
            channel.settimeout(0.3)
            channel.sendall(request)
            answer = channel.recv(200)
            place.done[answer[9:12].decode("ascii", "replace") or "no answer"] += 1
    except OSError:
        place.done["no answer"] += 1
