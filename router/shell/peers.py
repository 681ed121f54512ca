"""What the shell keeps of each connected peer: bytes it has not read, errors it made, its id.

ZeroMQ counts frames, not bytes, and tells nobody what a peer has read. So after every so many
bytes a PING with a number nobody can guess goes into the stream, and its PONG shows that all before
it was read. A routing id proves nothing, and libzmq lets a peer choose one: those it makes itself
follow each other from a random first one, so any other is refused, and guessing is expensive.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import zmq

from proto import frames
from proto.wording import text
from router.core.admitting import NAME_SHARE
from router.settings import BusSettings
from router.shell.gate import EVENTS_UNREAD_MAX, Connection, Gate, socket_id

MARK_BYTES: Final = 256 * 1024
SUPPLY_BYTES: Final = 4 * 1024 * 1024  # of deliveries, before the first of them is read
FRAME_OVERHEAD_BYTES: Final = 256  # what libzmq takes for a frame of its own
SHARE_REFILL_S: Final = 1  # so many seconds bring back the whole share of a name
OTHERS_S: Final = 5.0  # whoever published so long ago is to have a share
SMALL_BYTES: Final = 64 * 1024  # frames below it count by their rows only
ROW_BYTES: Final = 2048  # so many bytes of a share a message or an attempt costs, besides its own
ERRORS_REFILL_S: Final = 200  # so many seconds bring back all that a name may get wrong
GUESS_COST: Final = 4  # guesses of a routing id that use all of it up
BARRED_S: Final = (1.0, 60.0)  # for the first time, and at most: it doubles
LAST_WORDS_S: Final = 0.1  # between what is said to a peer and the end of its connection
IDS: Final = 2**32
ERRORS: Final = "router.reason_errors"
SHARE: Final = "router.reason_share"
GUESS: Final = "router.reason_guess"
UNREAD: Final = "router.reason_unread"
LATE: Final = 2 * EVENTS_UNREAD_MAX  # connections the gate may not have counted yet

log = logging.getLogger("smpbus.peers")


@dataclass(slots=True, eq=False)
class Party:
    """All connections of one key: what one of them gets wrong the others answer for."""

    errors_left: float
    refilled_at: float
    share_left: float
    shared_at: float
    peers: set["Peer"] = field(default_factory=set)
    barred_until: float = 0.0
    barred_s: float = BARRED_S[0]
    why: str = ERRORS  # it is barred: a text, and a key of LAST_WORDS
    turn: int = 0  # in which it last added to the gathered transaction, and what (see turns.py)
    turn_rows: int = 0
    turn_bytes: int = 0
    waiting_bytes: int = 0
    cut: bool = False  # it is to go: nothing more of it is read


@dataclass(slots=True, eq=False)
class Peer:
    """One routing id. `sent` and `read` are bytes, ever; `marks` are unanswered PINGs."""

    id: bytes
    key: bytes
    party: Party
    connection: Connection | None
    sent: int = 0
    read: int = 0
    marked: int = 0
    marks: deque[tuple[int, int, float]] = field(default_factory=deque)  # nonce, sent, when
    dismissed: bool = False  # told to go: nothing it says counts
    waiting: deque[list[zmq.Frame]] = field(default_factory=deque)  # for its turn
    begun: bool = False  # the core has only begun with what it said last,
    begun_bytes: int = 0  # which is so long

    @property
    def unread(self) -> int:
        """Return about how many bytes wait for it, here and on its way."""
        return self.sent - self.read


class Peers:
    """Every routing id that has spoken and whose connection may still be there."""

    def __init__(self, settings: BusSettings, gate: Gate, first_id: bytes) -> None:
        """`first_id` is one that libzmq made for this socket before all others."""
        self.configure(settings)
        self.unread = 0
        self.dismissed = 0  # ever: did not read, or was wrong too often
        self.guessed = 0  # routing ids that libzmq cannot have made
        self._gate = gate
        self._first = int.from_bytes(first_id[1:], "big")
        self._peers: dict[bytes, Peer] = {}
        self._parties: dict[bytes, Party] = {}
        self._published: dict[Party, float] = {}  # when last, monotonic

    def configure(self, settings: BusSettings) -> None:
        """Put other bounds in force."""
        self.settings = settings
        self.unread_max = max(settings.unread_bytes_max, 2 * settings.frame_bytes_max)
        self.share_max = max(settings.share_bytes_max, settings.frame_bytes_max)
        self.supply_bytes = min(SUPPLY_BYTES, self.unread_max // 4)

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, id: bytes) -> Peer | None:
        """Return a peer that has spoken before."""
        return self._peers.get(id)

    def meet(self, id: bytes, key: bytes, frame: Any) -> Peer:
        """Take up a peer whose first frame this is."""
        connection = self._gate.greet(socket_id(frame))
        party = self._party(key or id)
        peer = self._peers[id] = Peer(id, key, party, connection)
        party.peers.add(peer)
        if connection is not None and self._is_crowd(party):
            peer.dismissed = True
            self._gate.spare(connection)
        return peer

    def _is_crowd(self, party: Party) -> bool:
        """Whether a key has more connections than its share of all."""
        most = max(1, self._gate.connections_max // NAME_SHARE)
        if len(party.peers) <= most:
            return False
        for peer in [one for one in party.peers if one.dismissed and not self.is_there(one)]:
            self._forget(peer)
        return sum(1 for one in party.peers if not one.dismissed and self.is_there(one)) > most

    def is_chosen(self, id: bytes) -> bool:
        """Whether a routing id cannot be one of libzmq's own: whoever chose the same next would
        get what is sent to it."""
        if len(id) != 5 or id[0]:
            return True
        ordinal = (int.from_bytes(id[1:], "big") - self._first) % IDS
        if ordinal <= self._gate.accepted + LATE:
            return False
        self.guessed += 1
        return True

    def barred_s(self, peer: Peer) -> float:
        """Return for how long a peer's key is not listened to; 0: it is."""
        return max(0.0, peer.party.barred_until - time.monotonic())

    def blame(self, peer: Peer, errors: float) -> bool:
        """Note errors of a peer; return whether they were too many."""
        party, most, now = peer.party, self.settings.errors_max, time.monotonic()
        refill = (now - party.refilled_at) * most / ERRORS_REFILL_S
        party.refilled_at = now
        party.errors_left = min(most, party.errors_left + refill) - errors
        if party.errors_left >= 0:
            return False
        if now > party.barred_until + BARRED_S[1]:
            party.barred_s = BARRED_S[0]
        party.errors_left = 0.0
        party.barred_until, party.why = now + party.barred_s, ERRORS
        party.barred_s = min(BARRED_S[1], 2 * party.barred_s)
        return True

    def charge(self, peer: Peer, rows: int, published: bool) -> None:
        """Count the work that a frame made; who publishes is to have a share beside others."""
        party = peer.party
        if published:
            self._published[party] = time.monotonic()
        party.share_left -= rows * ROW_BYTES

    def exceeds_share(self, peer: Peer, size: int) -> bool:
        """Whether a frame of so many bytes is beyond the share of a name, beside others."""
        party = peer.party
        if size < SMALL_BYTES and party.share_left > 0:
            return False
        most, now = self.share_max, time.monotonic()
        refill = (now - party.shared_at) * most / SHARE_REFILL_S
        party.share_left, party.shared_at = min(most, party.share_left + refill), now
        if size <= party.share_left or not self.has_others(party):
            party.share_left = max(0.0, party.share_left - size)
            return False
        return True

    @staticmethod
    def bar_for_share(party: Party) -> None:
        """Do not listen to a name for a while that takes more than its share."""
        party.barred_until, party.why = time.monotonic() + SHARE_REFILL_S, SHARE

    def has_others(self, party: Party) -> bool:
        """Whether others publish."""
        now = time.monotonic()
        others = (at for other, at in self._published.items() if other is not party)
        return any(now - at < OTHERS_S for at in others)

    def guess(self, peer: Peer) -> bool:
        """Note a guessed routing id; return whether it was one too many."""
        return self.blame(peer, self.settings.errors_max / GUESS_COST)

    def has_room(self, peer: Peer, size: int) -> bool:
        """Whether a peer may be sent so many bytes more."""
        return peer.unread + size <= self.unread_max

    def is_there(self, peer: Peer) -> bool:
        """Whether a peer's connection is still its own: its id may be another's tomorrow."""
        return peer.connection is not None and self._gate.is_open(peer.connection)

    def note_sent(self, peer: Peer, size: int) -> bool:
        """Count what was sent; return whether a mark is due."""
        size += FRAME_OVERHEAD_BYTES
        peer.sent += size
        self.unread += size
        return peer.sent - peer.marked >= MARK_BYTES

    def mark(self, peer: Peer) -> list[bytes]:
        """Return the PING that its PONG will answer when all before it has been read."""
        nonce = secrets.randbits(62) | 1 << 61
        peer.marked = peer.sent
        peer.marks.append((nonce, peer.sent, time.monotonic()))
        return [frames.PING, frames.encode(frames.Ping(nonce))]

    def answered(self, peer: Peer, nonce: int) -> bool:
        """Note that all before a mark was read; return whether it was a mark at all."""
        if nonce not in (mark[0] for mark in peer.marks):
            return False
        while True:
            number, sent, _ = peer.marks.popleft()
            if number == nonce:
                break
        self.unread -= sent - peer.read
        peer.read = sent
        return True

    def slowest(self) -> Peer | None:
        """Return the peer whose oldest mark has waited longest, if all together have too much."""
        if self.unread <= self.settings.unread_bytes_total:
            return None
        waiting = [peer for peer in self._peers.values() if peer.marks and not peer.dismissed]
        return min(waiting, key=lambda peer: peer.marks[0][2], default=None)

    def dismiss(self, peer: Peer, reason: str, name: str | None) -> None:
        """Listen to a peer no more, and end its connection when it has heard why."""
        peer.dismissed = True
        self.dismissed += 1
        if peer.connection is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(LAST_WORDS_S, self._gate.shut, peer.connection)
        log.warning(text("router.dismissed", name=name or "?", reason=text(reason)))

    def tidy(self, alive: Callable[[bytes], object]) -> None:
        """Forget those whose connection has ended and who are not `alive` as a session any more."""
        now = time.monotonic()
        gone = [
            peer for peer in self._peers.values() if not self.is_there(peer) and not alive(peer.id)
        ]
        for peer in gone:
            self._forget(peer)
        for key, party in list(self._parties.items()):
            if not party.peers and now > party.refilled_at + ERRORS_REFILL_S:
                del self._parties[key]
                self._published.pop(party, None)

    def _forget(self, peer: Peer) -> None:
        self.unread -= peer.unread
        peer.party.peers.discard(peer)
        del self._peers[peer.id]

    def _party(self, key: bytes) -> Party:
        party = self._parties.get(key)
        if party is None:
            now = time.monotonic()
            party = Party(float(self.settings.errors_max), now, float(self.share_max), now)
            self._parties[key] = party
        return party


def learn_first_id(socket: "zmq.Socket[bytes]") -> bytes:
    """Return the first routing id of an unbound ROUTER, which an inner socket of ours got; all that
    libzmq makes for it later follow by one."""
    address = f"inproc://first-{secrets.token_hex(8)}"
    socket.bind(address)
    probe: zmq.Socket[bytes] = socket.context.socket(zmq.DEALER)
    try:
        probe.setsockopt(zmq.LINGER, 0)
        probe.connect(address)
        probe.send(b"")
        return socket.recv_multipart()[0]
    finally:
        probe.close(0)
        socket.unbind(address)
