"""The bus's own socket and the peers at it: who is let in, who is barred, what each may be sent."""

import contextlib
from typing import Any, Final

import zmq

from proto import frames
from proto.drain import send_parts
from proto.errors import Code
from proto.keys import KeyPair
from router.core.admitting import UNREACHABLE
from router.core.clock import Now
from router.core.core import Core
from router.settings import BusSettings
from router.shell.clock import now
from router.shell.gate import Gate
from router.shell.peers import ERRORS, GUESS, SHARE, UNREAD, Peer, Peers, learn_first_id
from router.shell.socket import open_router

CHOSEN_ID: Final = [
    frames.ERROR,
    frames.encode(frames.Error(Code.BAD_FRAME, "leave the routing id to libzmq")),
]
CROWD: Final = [
    frames.ERROR,
    frames.encode(frames.Error(Code.TOO_MANY_SESSIONS, "no more connections of this key")),
]
BARRED: Final = {
    ERRORS: frames.Error(Code.TOO_MANY_ERRORS, "too many errors: come back later"),
    SHARE: frames.Error(Code.TOO_MUCH, "more than a share while others publish: come back later"),
}


class Bus:
    """An unbound ROUTER, its connections and its peers."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        key: KeyPair | None,
        settings: BusSettings,
        connections_max: int,
        core: Core,
    ) -> None:
        """With `key` only CURVE peers get in."""
        self.socket = open_router(
            context, key, settings.frame_bytes_max, settings.frames_unread_max
        )
        self.has_keys = key is not None
        self.addresses: list[str] = []  # that it is bound to
        first_id = learn_first_id(self.socket)
        patience_s = settings.session_timeout_ms / 1000
        self.gate = Gate(self.socket, "bus", connections_max, patience_s)
        self.peers = Peers(settings, self.gate, first_id)
        self._core = core
        core.allow_unread(self.peers.supply_bytes)

    def configure(self, settings: BusSettings) -> None:
        """Put other bounds in force."""
        self.peers.configure(settings)
        self.gate.patience_s = settings.session_timeout_ms / 1000

    # -- sending ----------------------------------------------------------------------------------

    def send(self, id: bytes, parts: list[bytes]) -> bool:
        """Return whether a frame is on its way. Not if its peer is unknown (it left) or clogged (it
        does not read): either way its hands are empty."""
        peers, size = self.peers, len(parts[1])
        peer = peers.get(id)
        if peer is not None:
            if peer.dismissed or not peers.is_there(peer):
                return False
            if not peers.has_room(peer, size):
                peers.dismiss(peer, UNREAD, self._name_of(peer))
                return False
        try:
            send_parts(self.socket, (id, *parts))
        except zmq.ZMQError:
            return False
        if peer is not None and peers.note_sent(peer, size):
            self._mark(peer)
        return True

    def _mark(self, peer: Peer) -> None:
        """Find out what a peer reads, and let go of the slowest if all have too much to read."""
        with contextlib.suppress(zmq.ZMQError):
            send_parts(self.socket, (peer.id, *self.peers.mark(peer)))
        if slowest := self.peers.slowest():
            self.peers.dismiss(slowest, UNREAD, self._name_of(slowest))
            self._core.gone(slowest.id, now(), UNREACHABLE)

    def take_pong(self, peer: Peer, parts: list[bytes], at: Now) -> None:
        """A peer with marks said PONG: if it answers one, the peer may be sent more."""
        with contextlib.suppress(frames.FrameError):
            pong = frames.read(parts, frames.ROUTER_READS)
            session = self._core.sessions.get(peer.id)
            if isinstance(pong, frames.Ping) and self.peers.answered(peer, pong.nonce) and session:
                self._core.feed(session, self.peers.supply_bytes - peer.unread, at)

    # -- peers ------------------------------------------------------------------------------------

    def meet(self, id: bytes, key: bytes, frame: zmq.Frame) -> Peer:
        """Take up a peer whose first frame this is, or turn it away with one sentence."""
        peers = self.peers
        peer = peers.meet(id, key, frame)
        if peers.is_chosen(id):
            self.send(id, CHOSEN_ID)
            peers.dismiss(peer, GUESS, self._name_of(peer))
            if peers.guess(peer):
                self.bar(peer)
        elif peers.barred_s(peer):
            self.bar(peer)
        elif peer.dismissed:
            with contextlib.suppress(zmq.ZMQError):
                send_parts(self.socket, (id, *CROWD))
        return peer

    def bar(self, peer: Peer) -> None:
        """End all sessions and connections of a peer's key, which is not listened to for a time."""
        peer.party.cut = False
        for one in list(peer.party.peers):
            if not one.dismissed:
                why = peer.party.why
                self.send(one.id, [frames.ERROR, frames.encode(BARRED[why])])
                self.peers.dismiss(one, why, self._name_of(one))
                self._core.gone(one.id, now(), BARRED[why].code)

    def tidy(self) -> None:
        """Forget peers that are gone; once a second is enough."""
        self.peers.tidy(self._core.sessions.__contains__)

    def _name_of(self, peer: Peer) -> str | None:
        session = self._core.sessions.get(peer.id)
        return session.name if session else self._core.names.get(peer.key)
