"""The connections to one listening socket: their number is bounded, so that descriptors never run
out.

libzmq accepts whoever comes, ends the process when an ipc socket finds no descriptor left, and has
no call to end one connection. So a thread of our own follows its monitor and shuts down the
descriptor of a connection that is one too many: first of those whose other end is gone, then of
those that have not said a word, since a peer with a key speaks within milliseconds. While the
thread is behind, libzmq waits for it.
"""

import logging
import os
import socket as posix
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import zmq

from proto.wording import text

EVENTS: Final = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_MONITOR_STOPPED
)
# How many events libzmq leaves unread before it waits: its own 1,000 and one of ours.
EVENTS_UNREAD_MAX: Final = 1001
STRANGERS_SHARE: Final = 4  # of all connections, those without a word may have a quarter
GREET_S: Final = 0.5  # what a peer with a key needs at most, even on a busy machine
# A greeting costs about 0.3 ms of libzmq's own thread, through which all that is said goes.
EXCHANGES_S: Final = 200.0
EXCHANGES_MAX: Final = 20.0
LOOK_MS: Final = 500
CLOSE_S: Final = 2.0
HEARD_S: Final = 0.2  # how long a frame may wait for word of its connection
_EVENT: Final = struct.Struct("=HI")
_ACCEPTED: Final = int(zmq.EVENT_ACCEPTED)
_DISCONNECTED: Final = int(zmq.EVENT_DISCONNECTED)
_STOPPED: Final = int(zmq.EVENT_MONITOR_STOPPED)
_REFUSED: Final = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
# Of a failed handshake: what came cannot be opened with our key.
CRYPTOGRAPHIC: Final = int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
SETTLED_S: Final = 0.5
TELL_S: Final = 60.0  # the same not more often

log = logging.getLogger("smpbus.gate")


@dataclass(slots=True, eq=False)
class Connection:
    """One accepted connection: `inode` tells it from a later one with the same descriptor."""

    fd: int
    inode: int
    since: float  # monotonic
    greeted: bool = False


class Gate:
    """Counts and bounds the connections of one socket; start it before the socket is bound."""

    def __init__(
        self, socket: "zmq.Socket[bytes]", name: str, connections_max: int, patience_s: float
    ) -> None:
        """Those that say nothing for `patience_s` are shut; with 0 all may be silent, and it is the
        newest that is one too many."""
        self.name = name
        self.connections_max = connections_max
        self.patience_s = patience_s
        self.accepted = 0  # ever
        self.shut_out = 0  # one too many, or silent for too long
        self.refused = 0  # handshakes: a key that is not known
        self.other_key = 0  # handshakes for another key of the router, or made up
        self.broken = 0  # other handshakes that came to nothing
        self._open: dict[int, Connection] = {}
        self._strangers: dict[int, Connection] = {}  # by age
        self._spare: dict[int, Connection] = {}  # nobody listens to them, by age
        self._exchanges = EXCHANGES_MAX  # left
        self._exchanged_at = time.monotonic()
        self._leaving: dict[int, int] = {}  # descriptors that are shut out -> inodes
        self._guard = threading.Lock()
        self._heard = threading.Condition(self._guard)  # of a connection
        self._told_at: dict[str, float] = {}
        self._quiet_until = float("inf")
        self._socket = socket
        address = f"inproc://gate-{name}-{id(self)}"
        socket.monitor(address, EVENTS)
        self._monitor: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 1)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(address)
        self._thread = threading.Thread(target=self._run, name=f"gate-{name}", daemon=True)
        self._thread.start()

    def begin(self, strangers: int) -> None:
        """Tell, soon. So many of the refused are those of our own self-test, of whom we may not
        have heard yet."""
        with self._guard:
            self.refused -= strangers
            self.other_key = self.broken = 0
        self._quiet_until = time.monotonic() + SETTLED_S

    def __len__(self) -> int:
        return len(self._open)

    @property
    def strangers(self) -> int:
        """How many of the open ones have not said a word."""
        return len(self._strangers)

    def greet(self, fd: int) -> Connection | None:
        """Return the connection of a frame that just came, which is no stranger any more.

        It was accepted before its frame came, but this thread may have been the faster one: then it
        waits for the other. A peer whose connection nobody knows would never be answered. For what
        is shut out already nobody waits: who comes again and again would stop us all.
        """
        with self._heard:
            if fd >= 0 and not self._knows(fd):
                self._heard.wait_for(lambda: self._knows(fd), HEARD_S)
            connection = self._open.get(fd)
            if connection is not None:
                connection.greeted = True
                self._strangers.pop(fd, None)
            return connection

    def _knows(self, fd: int) -> bool:
        """Whether the connection that has this descriptor now is one that was heard of."""
        try:
            inode = os.fstat(fd).st_ino
        except OSError:
            return True  # gone already; its end is told next
        connection = self._open.get(fd)
        if connection is None:
            return self._leaving.get(fd) == inode
        return connection.inode == inode

    def is_open(self, connection: Connection) -> bool:
        """Whether a connection has not ended."""
        return self._open.get(connection.fd) is connection

    def shut(self, connection: Connection) -> None:
        """End one connection: what waits to be sent to it is dropped with it."""
        with self._guard:
            self._shut(connection)

    def spare(self, connection: Connection) -> None:
        """Let a connection to which nobody listens go when its place is needed. Who is shut at once
        comes back at once, and each greeting costs more than a place does."""
        with self._guard:
            if self.is_open(connection):
                self._spare[connection.fd] = connection
                self._bound()

    def close(self) -> None:
        """Stop listening; a socket that is closed has said so by itself."""
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            while True:
                ready = self._monitor.poll(LOOK_MS)
                with self._guard:
                    if ready and not self._read():
                        return
                    self._bound()
        finally:
            self._monitor.close(0)

    def _read(self) -> bool:
        """Take in what has happened; return False when nothing more will come."""
        while True:
            try:
                told = self._monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return True
            event, value = _EVENT.unpack(told[0])
            if event == _ACCEPTED:
                self._accept(value)
                if len(self._open) > self.connections_max:
                    self._bound()
            elif event == _DISCONNECTED:
                self._open.pop(value, None)
                self._strangers.pop(value, None)
                self._spare.pop(value, None)
                self._leaving.pop(value, None)
            elif event == _STOPPED:
                return False
            elif event == _REFUSED:
                self.refused += 1
                if self.refused > 0:
                    self._tell("router.key_refused", count=self.refused)
            elif value == CRYPTOGRAPHIC:
                self.other_key += 1
                self._tell("router.other_key", count=self.other_key)
            else:
                self.broken += 1

    def _accept(self, fd: int) -> None:
        self.accepted += 1
        try:
            inode = os.fstat(fd).st_ino
        except OSError:  # gone already; its end is told next
            inode = 0
        connection = Connection(fd, inode, time.monotonic())
        self._open[fd] = connection
        self._strangers.pop(fd, None)  # a new one is the youngest, whatever had its number
        self._strangers[fd] = connection
        self._heard.notify_all()

    def _bound(self) -> None:
        before = self.shut_out
        share = STRANGERS_SHARE if self.patience_s else 1
        strangers_max = max(1, self.connections_max // share)
        now = time.monotonic()
        while self._strangers and (
            len(self._open) > self.connections_max or len(self._strangers) > strangers_max
        ):
            if self._spare and len(self._strangers) <= strangers_max and self._may_exchange(now):
                self._shut_out(next(iter(self._spare.values())))
                continue
            # One that has had time to speak goes first, else the newest: a crowd that comes again
            # and again would give nobody time enough to say who he is.
            oldest = next(iter(self._strangers.values()))
            has_had_time = self.patience_s and now - oldest.since >= GREET_S
            self._shut_out(oldest if has_had_time else next(reversed(self._strangers.values())))
        if self.patience_s:
            late = time.monotonic() - self.patience_s
            while self._strangers and (first := next(iter(self._strangers.values()))).since < late:
                self._shut_out(first)
        if self.shut_out > before:
            self._tell_shut_out()

    def _may_exchange(self, now: float) -> bool:
        """Whether one more may come in for one to whom nobody listens."""
        refill = (now - self._exchanged_at) * EXCHANGES_S
        self._exchanges = min(EXCHANGES_MAX, self._exchanges + refill)
        self._exchanged_at = now
        if self._exchanges < 1:
            return False
        self._exchanges -= 1
        return True

    def _tell_shut_out(self) -> None:
        self._tell(
            "router.connections_shut", count=self.shut_out, open=len(self._open),
            most=self.connections_max,
        )  # fmt: skip

    def _shut_out(self, connection: Connection) -> None:
        self.shut_out += 1
        self._shut(connection)
        if self._open.pop(connection.fd, None) is connection:
            self._leaving[connection.fd] = connection.inode

    def _shut(self, connection: Connection) -> None:
        self._strangers.pop(connection.fd, None)
        self._spare.pop(connection.fd, None)
        if self._open.get(connection.fd) is not connection:
            return
        try:
            if os.fstat(connection.fd).st_ino != connection.inode:
                return
            handle = posix.socket(fileno=connection.fd)
        except OSError:
            return
        try:
            handle.shutdown(posix.SHUT_RDWR)
        except OSError:
            pass  # its other end was faster
        finally:
            handle.detach()  # the descriptor is libzmq's to close

    def _tell(self, what: str, **fields: object) -> None:
        now = time.monotonic()
        if now >= self._quiet_until and now - self._told_at.get(what, -TELL_S) >= TELL_S:
            self._told_at[what] = now
            log.warning(text(what, name=self.name, **fields))


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may at all, and return how many that is."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard


def connections_within(descriptors: int, wanted: int) -> int:
    """Return how many connections a limit of descriptors has room for, beside the journal, the
    pages, and those that libzmq accepts before the gate has heard of them."""
    reserve = min(2 * EVENTS_UNREAD_MAX, descriptors // 2)
    return max(8, min(wanted, descriptors - reserve))


def socket_id(frame: Any) -> int:
    """Return the descriptor of the connection that a received frame came by; -1: it is unknown."""
    try:
        return int(frame.get(zmq.SRCFD))
    except (zmq.ZMQError, ValueError):
        return -1
