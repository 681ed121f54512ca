"""Sessions: who is let in, what a reload or a lost key takes away, and how a session ends."""

from collections.abc import Collection
from typing import Final

import msgspec

from proto import frames
from proto.errors import Code
from proto.note import coded
from router.core.asking import Asking
from router.core.clock import Now
from router.core.permission import Rights
from router.core.questions import Question
from router.core.routing import Routes
from router.core.session import Session
from router.core.settling import Settling
from router.settings import Permission, Settings

HEARTBEAT_MS: Final = 1_000
NAME_SHARE: Final = 4  # of all sessions one name may have a quarter: a crowd shuts nobody out
# Why sessions end, as notes (proto/note.py): for those who watch.
REVOKED: Final = coded("session.revoked")
GREETED_AGAIN: Final = coded("session.greeted_again")
WITHOUT_RIGHTS: Final = coded("session.without_rights")
SILENT: Final = coded("session.silent")
UNREACHABLE: Final = coded("session.unreachable")
NO_RIGHTS: Final = Rights(Permission())
_read_deliver = msgspec.msgpack.Decoder(frames.DeliverRaw).decode


class Admitting(Settling, Asking):
    """HELLO, BYE, and what else begins and ends a session or its rights."""

    def _hello(self, peer: bytes, key: bytes, hello: frames.Hello, now: Now) -> None:
        if frames.PROTOCOL_VERSION not in hello.versions:
            sentence = f"this router speaks version {frames.PROTOCOL_VERSION}"
            return self._error(peer, Code.BAD_VERSION, sentence, "HELLO")
        name = self.names.get(key) if key else hello.name
        if name is None:
            return self._error(peer, Code.REVOKED, "this key is not valid any more", "HELLO")
        if name != hello.name:
            return self._error(peer, Code.NAME_MISMATCH, "this key has another name", "HELLO")
        rights = self._rights.get(name)
        if rights is None:
            return self._error(peer, Code.UNKNOWN_NAME, "this name has no permissions", "HELLO")
        if peer in self.sessions:
            self.gone(peer, now, GREETED_AGAIN, died=False)
        if len(self.sessions) >= self.settings.bus.sessions_max:
            return self._error(peer, Code.TOO_MANY_SESSIONS, "no more sessions now", "HELLO")
        own = sum(1 for session in self.sessions.values() if session.name == name)
        if own >= max(1, self.settings.bus.sessions_max // NAME_SHARE):
            sentence = f"{name} has {own} sessions, and may have no more"
            return self._error(peer, Code.TOO_MANY_SESSIONS, sentence, "HELLO")
        session = Session(peer, key, name, hello.software, rights, now.wall_ms)
        session.heard_ms = now.mono_ms
        session.allowance.bytes = self.supply_bytes
        self.sessions[peer] = session
        self._observe("session", {"name": name, "state": "up", "software": hello.software})
        welcome = frames.Welcome(
            frames.PROTOCOL_VERSION, name, self.bus, self.epoch,
            self.body_bytes_max, frames.BATCH_LENGTH_MAX, HEARTBEAT_MS,
            self.settings.bus.frame_bytes_max,
        )  # fmt: skip
        self._send(peer, frames.WELCOME, welcome)
        return None

    def know(self, names: dict[bytes, str], now: Now) -> None:
        """Put the known keys in force; sessions whose key is gone end at once."""
        self.names = names
        revoked = [
            session
            for session in self.sessions.values()
            if session.key and names.get(session.key) != session.name
        ]
        for session in revoked:
            self._error(session.peer, Code.REVOKED, "this key is not valid any more")
        self._end_together(revoked, REVOKED, now, died=False)

    def configure(self, settings: Settings, now: Now) -> None:
        """Put routes, permissions, policies and limits in force, at once and for all."""
        self._put_in_force(settings)
        sessions = list(self.sessions.values())
        for session in sessions:
            session.routed.clear()
            session.rights = self._rights.get(session.name, NO_RIGHTS)
            self._close(session)
        for session in sessions:
            if session.name in self._rights:
                self._withdraw(session, now)
            else:
                sentence = "this name has no permissions any more"
                self._error(session.peer, Code.UNKNOWN_NAME, sentence)
                self.gone(session.peer, now, WITHOUT_RIGHTS, died=False)
        for session in list(self.sessions.values()):
            self._grant_again(session, now)

    def _put_in_force(self, settings: Settings) -> None:
        self.settings = settings
        self._routes = Routes(settings.routes)
        self._rights = {name: Rights(p, name) for name, p in settings.permissions.items()}
        for name, destination in settings.destinations.items():
            if queue := self.queues.get(name):
                queue.configure(destination)
            else:
                self.add_queue(name, destination)
        self._projections = self._routes.projections()

    @staticmethod
    def _close(session: Session) -> None:
        """Give nothing more of what a session has no right to; others may lose it as well, and
        what the first one gives back must not go to the next."""
        for destination, holding in session.holdings.items():
            if not session.rights.consume.match(destination):
                session.want(frames.Credit(destination, holding.window, holding.serves))
                holding.window = 0

    def _grant_again(self, session: Session, now: Now) -> None:
        """Give a session the credit that it asked for in vain: its right or its queue is there."""
        for destination, credit in list(session.wanted.items()):
            if destination in self.queues and session.rights.consume.match(destination):
                self._credit(session, credit, now)

    def _withdraw(self, session: Session, now: Now) -> None:
        """Take back what a session holds of the destinations it may consume no more."""
        for destination, holding in list(session.holdings.items()):
            if not session.rights.consume.match(destination):
                del session.holdings[destination]
                sentence = f"{session.name} may not consume {destination} any more"
                self._error(session.peer, Code.NOT_PERMITTED, sentence, "CREDIT")
                self._let_go(holding, now)
                self._dispatch(self.queues[destination], now)

    def gone(
        self, peer: bytes, now: Now, reason: str, *, died: bool = True,
        spared: Collection[int] = (),
    ) -> None:  # fmt: skip
        """End a session: its deliveries return to the front of their lanes, in order. If it `died`,
        it may have died of any that it had just got, except the `spared` that never reached it.
        `reason` is a note for those who watch."""
        session = self.sessions.pop(peer, None)
        if session is None:
            return
        self.left[session.name] = now.wall_ms
        accused = self._accused(session, spared) if died else ()
        for holding in session.holdings.values():
            self._let_go(holding, now, accused)
        for destination in session.holdings:
            self._dispatch(self.queues[destination], now)
        for question in self._questions.close_all_of(peer):
            self._answer(question, Code.NO_CONSUMER, "who was asked went away")
        self._observe("session", {"name": session.name, "state": "down", "reason": reason})

    def _end_together(self, sessions: list[Session], reason: str, now: Now, *, died: bool) -> None:
        """End sessions in the same moment: what one held does not go to the next."""
        for session in sessions:
            session.rights = NO_RIGHTS
            self._close(session)
        for session in sessions:
            self.gone(session.peer, now, reason, died=died)

    def feed(self, session: Session, supply_bytes: int, now: Now) -> None:
        """A peer has read what it was sent: it may be sent so many bytes of deliveries more."""
        allowance = session.allowance
        short, allowance.bytes = allowance.bytes <= 0, supply_bytes
        for destination in session.holdings if short else ():
            self._dispatch(self.queues[destination], now)

    def unsent(self, peer: bytes, lost: list[list[bytes]], now: Now) -> None:
        """End the session of a peer that takes no frames. The questions among them were heard by
        nobody: asking another cannot have two effects."""
        asked: list[tuple[Question, frames.RequestRaw]] = []
        spared: set[int] = set()
        for verb, payload in lost:
            if verb == frames.REQUEST:
                request = frames.ROUTER_READS[verb].decode(payload)
                if question := self._questions.close(request.request):
                    asked.append((question, request))
            elif verb == frames.DELIVER:
                spared.update(one.delivery for one in _read_deliver(payload).deliveries)
        self.gone(peer, now, UNREACHABLE, spared=spared)
        for question, request in asked:
            if asker := self.sessions.get(question.asker):
                left_ms = max(1, question.deadline_ms - now.mono_ms)
                again = (question.number, request.destination, left_ms, request.message)
                self._request(asker, frames.RequestRaw(*again), now)

    def farewell(self) -> None:
        """Say BYE to everyone; the shell stops reading before it calls this."""
        for peer in self.sessions:
            self._send(peer, frames.BYE, frames.Bye("the router stops"))
