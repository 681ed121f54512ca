"""Connecting, and connecting again: how long to pause, and what the socket's monitor tells.

libzmq slows its own attempts down only while nobody listens. Where a connection is accepted and
then dropped (by a proxy in front of a stopped router, or a router with a different key) it would
try 20 times a second for ever. So libzmq is told not to try again; the clients do, paced by
`Pauses`.
"""

from collections.abc import Iterator
from random import uniform
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

FIRST_S: Final = 0.05
LONGEST_S: Final = 1.0
LIVED_S: Final = 5.0  # a session that lived so long was a good one

UNKNOWN_KEY: Final = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
HANDSHAKE: Final = frozenset(
    {int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL), int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)}
)
ENDED: Final = frozenset({int(zmq.EVENT_DISCONNECTED), int(zmq.EVENT_CLOSED)})
WATCHED: Final = UNKNOWN_KEY | sum(HANDSHAKE) | sum(ENDED)
_DONTWAIT: Final = int(zmq.DONTWAIT)


class Pauses:
    """The pauses between attempts: doubled up to LONGEST_S, spread so that many clients of one
    router do not come back in the same moment."""

    def __init__(self) -> None:
        self._next_s = FIRST_S
        self._since: float | None = None

    def welcomed(self, now: float) -> None:
        """A session began, at `now` (monotonic seconds)."""
        self._since = now

    def lost(self, now: float) -> float:
        """An attempt or a session ended; return the seconds until the next attempt."""
        if self._since is not None and now - self._since >= LIVED_S:
            self._next_s = FIRST_S
        self._since = None
        pause_s = self._next_s
        self._next_s = min(self._next_s * 2, LONGEST_S)
        return pause_s * uniform(0.5, 1.0)


def events(monitor: "zmq.Socket[bytes]") -> Iterator[int]:
    """Yield the events that a socket's monitor has for us, without waiting."""
    while True:
        try:
            parts = monitor.recv_multipart(_DONTWAIT)
        except zmq.Again:
            return
        yield int(parse_monitor_message(parts)["event"])
