"""The router's state machine. It is fed what happened and the time, and fills `out`.

Fed: frames of a peer, a transaction that is on disk, the time, a peer that is gone, a reload.
Filled: frames to send, the transaction that is gathering, events for those who watch.

The path of a message: `receive` -> `_publish` (publishing.py) puts it into the gathering batch ->
the store syncs the batch -> `persisted` (persisting.py) accepts it and queues its deliveries ->
`_dispatch` (delivering.py) hands them to consumers with credit -> `_settle` (settling.py) makes
them final in a later batch. Each of these modules is one verb over the state that they share
(state.py), and only they change it: whoever stands outside calls what is public here.

Invariants:
1. A delivery reaches a consumer, and ACCEPTED its sender, only after its batch is on disk.
2. Who a peer is comes from the key of the frame in hand, never from its routing id or its words.
3. Every accepted delivery is open in exactly one queue or final in the store.
"""

from random import Random

from proto import frames
from proto.errors import Code
from proto.frames import FrameError
from router.core.admitting import REVOKED
from router.core.clock import Now
from router.core.delivering import DELIVER_LENGTH_MAX
from router.core.operating import Operating
from router.core.persisting import Persisting
from router.core.publishing import Publishing
from router.core.salvage import salvage
from router.core.session import Session, Unfinished
from router.core.timing import Timing
from router.settings import Settings

__all__ = ["DELIVER_LENGTH_MAX", "Core", "Now"]


class Core(Publishing, Persisting, Operating, Timing):
    """All state of the router. Every method takes the time; none of them blocks or waits."""

    def __init__(self, settings: Settings, bus: str, epoch: int, random: Random) -> None:
        """`bus` names the store, `epoch` counts the router's starts on it."""
        super().__init__(bus, epoch, random)
        self._put_in_force(settings)

    def receive(self, peer: bytes, key: bytes, parts: list[bytes], now: Now) -> None:
        """Take one multipart message from the socket; `key` is the authenticated public key."""
        more = self.begin(peer, key, parts, now)
        while more:
            more = self.proceed(peer, now)

    def begin(self, peer: bytes, key: bytes, parts: list[bytes], now: Now) -> bool:
        """Take one multipart message, of what is large the first slice only. Return whether there
        is more of it: `proceed` is for that, before the peer's next one (which finishes it first).
        """
        try:
            payload = frames.read(parts, frames.ROUTER_READS)
        except FrameError as error:
            session = self.sessions.get(peer)
            if session is not None:
                session.heard_ms = now.mono_ms
                if error.verb == "SETTLE" and self._is_its_own(session, key):
                    self._settle(session, salvage(parts[1]), now)
            number = frames.number_of(parts)
            self._error(peer, error.code, error.sentence, error.verb, number)
            return False
        session = self.sessions.get(peer)
        if isinstance(payload, frames.Hello):
            self._hello(peer, key, payload, now)
            return False
        if session is None:
            verb, number = parts[0].decode("ascii"), frames.number_of(parts)
            self._error(peer, Code.HELLO_REQUIRED, "say HELLO first", verb, number)
            return False
        if not self._is_its_own(session, key):
            self._error(peer, Code.REVOKED, "this key is not valid any more")
            self.gone(peer, now, REVOKED, died=False)
            return False
        session.heard_ms = now.mono_ms
        while session.unfinished is not None:  # their order is that in which they came
            self._publish(session, session.unfinished, now)
        if isinstance(payload, frames.PublishRaw):
            return self._publish(session, Unfinished(payload.batch, payload.messages), now)
        self._handle(session, parts[0], payload, now)
        return False

    def _is_its_own(self, session: Session, key: bytes) -> bool:
        return session.key == key and (not key or self.names.get(key) == session.name)

    def _handle(self, session: Session, verb: bytes, payload: object, now: Now) -> None:
        match payload:
            case frames.Settle(settlements):
                self._settle(session, settlements, now)
            case frames.Credit():
                self._credit(session, payload, now)
            case frames.RequestRaw():
                self._request(session, payload, now)
            case frames.Reply():
                self._reply(session, payload)
            case frames.Report(body):
                session.take_report(body, now.wall_ms)
            case frames.Ping() if verb == frames.PING:
                self._send(session.peer, frames.PONG, payload)
            case frames.Bye(reason):
                self.gone(session.peer, now, reason[:300] or "bye", died=False)
