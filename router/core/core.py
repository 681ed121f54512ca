"""The router's state machine. It is fed what happened and the time, and fills `out`.

Fed: frames of a peer, a transaction that is on disk, the time, a peer that is gone, a reload.
Filled: frames to send, the transaction that is gathering, events for those who watch.

The path of a message: `receive` -> `_publish` (publishing.py) puts it into the gathering batch ->
the store syncs the batch -> `persisted` accepts it and queues its deliveries -> `_dispatch`
(delivering.py) hands them to consumers with credit -> `_settle` (settling.py) makes them final in a
later batch.

Invariants:
1. A delivery reaches a consumer, and ACCEPTED its sender, only after its batch is on disk.
2. Who a peer is comes from the key of the frame in hand, never from its routing id or its words.
3. Every accepted delivery is open in exactly one queue or final in the store.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from random import Random
from typing import Final

import msgspec

from proto import frames
from proto.errors import Code
from proto.frames import FrameError
from proto.message import decode_message
from router.core import supply
from router.core.asking import Asking
from router.core.clock import Now
from router.core.delivering import DELIVER_LENGTH_MAX
from router.core.delivery import DELAYED, EXPIRED, IN_FLIGHT, READY, RETRYING, Delivery
from router.core.operating import Operating
from router.core.output import Batch, Filed, Load, OpenDelivery
from router.core.permission import Rights
from router.core.policy import longest_pause_ms
from router.core.publishing import Publishing
from router.core.questions import Question
from router.core.queue import Queue
from router.core.routing import Routes
from router.core.salvage import salvage
from router.core.session import Session, Unfinished
from router.core.sleepers import ASLEEP
from router.core.timers import Kind
from router.settings import Permission, Settings

__all__ = ["DELIVER_LENGTH_MAX", "Core", "Now"]

HEARTBEAT_MS: Final = 1_000
# Of all sessions, and of all connections, one name may have a quarter: a crowd shuts nobody out.
NAME_SHARE: Final = 4
FILE_STEP: Final = 2_000
NO_RIGHTS: Final = Rights(Permission())
_read_deliver = msgspec.msgpack.Decoder(frames.DeliverRaw).decode


class Core(Publishing, Operating, Asking):
    """All state of the router. Every method takes the time; none of them blocks or waits."""

    def __init__(self, settings: Settings, bus: str, epoch: int, random: Random) -> None:
        """`bus` names the store, `epoch` counts the router's starts on it."""
        super().__init__(bus, epoch, random)
        self._put_in_force(settings)

    # -- configuration and start ----------------------------------------------------------------

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
                self.gone(session.peer, now, "no permissions any more", died=False)
        for session in list(self.sessions.values()):
            self._grant_again(session, now)

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
                self._dispatch(holding.queue, now)

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

    def restore(self, filed: Iterable[Filed], recent: list[OpenDelivery], next_n: int,
                next_delivery: int, now: Now, newest_ms: int = 0) -> None:  # fmt: skip
        """Take up what the store holds as open: what is filed stays on the disk until its turn
        comes, the `recent` rest is brought into memory, by its numbers. `newest_ms` (UTC) is when
        the newest message was accepted, 0 if there is none: what the clock is held against."""
        self._clock.begin(newest_ms, now)
        self._next_n = max(self._next_n, next_n)
        self._next_delivery = self._first_delivery = max(self._next_delivery, next_delivery)
        for queue in self.queues.values():
            queue.counted_from = self._first_delivery
        deliveries = [
            supply.delivery_of(row, self.queue_of(row.destination), now.mono_ms)
            for row in sorted(recent, key=lambda row: row.delivery)
        ]
        for run in filed:
            queue = self.queue_of(run.destination)
            queue.open += len(run.deliveries)
            if run.lane >= ASLEEP:
                queue.sleepers.find_on_disk(run.lane - ASLEEP, run.deliveries, run.hashes)
            else:
                queue.spill.find_on_disk(run.lane, run.deliveries, run.hashes)
        for delivery in deliveries:
            queue = delivery.queue
            queue.open += 1
            if supply.is_behind(delivery) and not self._sleeps_until(delivery, now):
                self.out.batch.filed.append(supply.put_out(delivery))
            else:
                queue.resident_bytes[delivery.lane] += delivery.size
                self._enqueue(delivery, now)
        for queue in self.queues.values():
            self._dispatch(queue, now)

    # -- what peers say ---------------------------------------------------------------------------

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
            self.gone(peer, now, "key revoked", died=False)
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
            self.gone(peer, now, "greeted again", died=False)
        if len(self.sessions) >= self.settings.bus.sessions_max:
            return self._error(peer, Code.TOO_MANY_SESSIONS, "no more sessions now", "HELLO")
        own = sum(1 for session in self.sessions.values() if session.name == name)
        if own >= max(1, self.settings.bus.sessions_max // NAME_SHARE):
            sentence = f"{name} has {own} sessions, and may have no more"
            return self._error(peer, Code.TOO_MANY_SESSIONS, sentence, "HELLO")
        session = Session(peer, key, name, hello.software, rights, now.wall_ms)
        session.heard_ms = now.mono_ms
        session.supply_bytes = self.supply_bytes
        self.sessions[peer] = session
        self._observe("session", {"name": name, "state": "up", "software": hello.software})
        welcome = frames.Welcome(
            frames.PROTOCOL_VERSION, name, self.bus, self.epoch,
            self.body_bytes_max, frames.BATCH_LENGTH_MAX, HEARTBEAT_MS,
            self.settings.bus.frame_bytes_max,
        )  # fmt: skip
        self._send(peer, frames.WELCOME, welcome)
        return None

    def gone(
        self, peer: bytes, now: Now, reason: str, *, died: bool = True,
        spared: Collection[int] = (),
    ) -> None:  # fmt: skip
        """End a session: its deliveries return to the front of their lanes, in order. If it `died`,
        it may have died of any that it had just got, except the `spared` that never reached it."""
        session = self.sessions.pop(peer, None)
        if session is None:
            return
        self.left[session.name] = now.wall_ms
        accused = self._accused(session, spared) if died else ()
        for holding in session.holdings.values():
            self._let_go(holding, now, accused)
        for holding in session.holdings.values():
            self._dispatch(holding.queue, now)
        for question in self._questions.close_all_of(peer):
            self._answer(question, Code.NO_CONSUMER, "who was asked went away")
        self._observe("session", {"name": session.name, "state": "down", "reason": reason})

    def feed(self, session: Session, supply_bytes: int, now: Now) -> None:
        """A peer has read what it was sent: it may be sent so many bytes of deliveries more."""
        short, session.supply_bytes = session.supply_bytes <= 0, supply_bytes
        for holding in session.holdings.values() if short else ():
            self._dispatch(holding.queue, now)

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
        self.gone(peer, now, "unreachable", spared=spared)
        for question, request in asked:
            if asker := self.sessions.get(question.asker):
                left_ms = max(1, question.deadline_ms - now.mono_ms)
                again = (question.number, request.destination, left_ms, request.message)
                self._request(asker, frames.RequestRaw(*again), now)

    # -- durability -------------------------------------------------------------------------------

    def take_batch(self) -> Batch:
        """Hand the gathered transaction to the store; the next one gathers meanwhile."""
        batch, self.out.batch = self.out.batch, Batch()
        self._writing.append(batch)
        self._file_stragglers(batch)
        batch.frontier = self._frontier()
        return batch

    def _file_stragglers(self, batch: Batch) -> None:
        """Put what has been open for long into the backlog, so that the frontier moves on."""
        before_n = self._next_n - self.frontier_lag_max
        filed: list[Delivery] = []
        for delivery in self.open.values():
            if delivery.n >= before_n or len(filed) == FILE_STEP:
                break
            filed.append(delivery)
        for delivery in filed:
            del self.open[delivery.id]
            self.backlog[delivery.id] = delivery
            delivery.filed = True
            delivery.queue.spill.pass_by(delivery.lane, delivery.id)
            batch.filed.append(supply.backlog_row(delivery))

    def _frontier(self) -> int:
        """Return the oldest message that is open without being in the backlog, or not on disk yet.

        Numbers grow, and `open` keeps their order: what is in it came before what is written.
        """
        for delivery in self.open.values():
            return delivery.n
        for batch in self._writing:
            if batch.messages:
                return batch.messages[0][0]
        return self._next_n

    def unsynced(self) -> dict[str, int]:
        """Return how many deliveries of each destination are on their way to the disk."""
        batches = (*self._writing, self.out.batch)
        counts = Counter(d.queue.name for batch in batches for d in batch.fresh if not d.filed)
        counts.update(row[0] for batch in batches for row in batch.spilled)
        return counts

    def unsynced_bytes(self) -> int:
        """Return how many bytes of messages are on their way to the disk."""
        return sum(batch.size for batch in (*self._writing, self.out.batch))

    def persisted(
        self, batch: Batch, duplicates: dict[int, int], now: Now,
        loaded: list[list[OpenDelivery]] | None = None,
    ) -> None:  # fmt: skip
        """The batch is on disk. `duplicates` are the n of messages that were accepted before,
        `loaded` is what each of its loads brought."""
        touched: dict[Queue, int] = {}  # and how many were accepted for it
        open = self.open
        self._writing.remove(batch)
        self.counters["accepted"] += len(batch.messages) - len(duplicates)
        self.counters["duplicates"] += len(duplicates)
        for delivery in batch.fresh:
            queue = delivery.queue
            accepted = touched.get(queue, 0)
            if (
                delivery.due is None
                and delivery.expires is None
                and not delivery.filed
                and not duplicates
            ):  # nearly all
                touched[queue] = accepted + 1
                open[delivery.id] = delivery
                queue.add(delivery)
                continue
            if duplicates and delivery.n in duplicates:
                queue.open -= 1
                queue.count(delivery.sender, -1)
                queue.resident_bytes[delivery.lane] -= delivery.size
                continue
            if delivery.filed:
                touched[queue] = accepted
                self._recalled.discard(delivery.id)
                self._enqueue(delivery, now)
                continue
            touched[queue] = accepted + 1
            self._enqueue(delivery, now)
        self._recalled.difference_update(row[0] for row in batch.dropped)
        if batch.spilled:
            self._note_spilled(batch, duplicates, touched)
        for load, rows in zip(batch.loads, loaded or (), strict=False):
            queue = self.queues[load.destination]
            touched.setdefault(queue, 0)
            for delivery in self._take_up(queue, load, rows, now):
                self._enqueue(delivery, now)
        self._send_accepted(batch.accepts)
        if self.observed:
            self._observe_accepted(batch, duplicates)
        for queue, accepted in touched.items():
            queue.totals["accepted"] += accepted
            self._dispatch(queue, now)

    def _note_spilled(
        self, batch: Batch, duplicates: dict[int, int], touched: dict[Queue, int]
    ) -> None:
        sources = {row[0]: row[1] for row in batch.messages} if duplicates else {}
        for name, lane, id, n, until in batch.spilled:
            queue = self.queues[name]
            accepted = touched.get(queue, 0)
            is_repeat = bool(duplicates) and n in duplicates
            if is_repeat:
                queue.open -= 1
                queue.count(supply.sender_of(sources[n], lane % ASLEEP), -1)
            touched[queue] = accepted if is_repeat else accepted + 1
            if lane >= ASLEEP:
                if not is_repeat:
                    queue.sleepers.add(lane - ASLEEP, id, until)
            elif is_repeat:
                queue.spill.read(lane, id)
            else:
                queue.spill.synced[lane] = id

    def _take_up(
        self, queue: Queue, load: Load, rows: list[OpenDelivery], now: Now
    ) -> list[Delivery]:
        """Bring what was read into memory; return what can be queued now, in order."""
        if load.wakes:
            return supply.wake(queue, load, rows, now.mono_ms)
        ready, loads = supply.take_up(queue, load, rows, now.mono_ms)
        self.out.batch.loads += loads
        return ready

    def _send_accepted(self, accepts: list[tuple[bytes, int]]) -> None:
        by_peer: dict[bytes, list[int]] = {}
        for peer, number in accepts:
            by_peer.setdefault(peer, []).append(number)
        for peer, numbers in by_peer.items():
            self._send(peer, frames.ACCEPTED, frames.Accepted(numbers))

    def _observe_accepted(self, batch: Batch, duplicates: dict[int, int]) -> None:
        for n, source, id, subject, *_, raw in batch.messages:
            if n not in duplicates:
                message = decode_message(raw)
                event: dict[str, object] = {"source": source, "id": id, "subject": subject}
                event |= {"type": message.type, "priority": message.priority}
                self._observe("accepted", event)

    def _enqueue(self, delivery: Delivery, now: Now) -> None:
        if until := self._sleeps_until(delivery, now):
            supply.put_to_sleep(delivery, until, self.out.batch)
            return
        (self.backlog if delivery.filed else self.open)[delivery.id] = delivery
        if self._is_over(delivery, now):  # on its way to the disk, or while it was there
            self._end(delivery, EXPIRED, None, now)
            return
        self._set_expiry(delivery, now)
        if delivery.due is None:
            delivery.queue.add(delivery)
        elif delivery.attempts:  # a retry: it is its subject's head already
            delivery.queue.add(delivery)
            if delivery.state is READY:
                # The clock may have been another when it was put off.
                longest_ms = longest_pause_ms(delivery.queue.settings.backoff)
                self._retry_at(delivery, min(delivery.due - now.wall_ms, longest_ms), now)
        elif (wait_ms := delivery.due - self._clock.sure_ms(now)) > 0:
            delivery.state = DELAYED
            self._set_timer(wait_ms, "due", delivery.id, now)
        else:
            delivery.queue.add(delivery)

    def _sleeps_until(self, delivery: Delivery, now: Now) -> int | None:
        """Return until when (ms UTC) a new one is left to the disk, None when it is not."""
        if delivery.due is None or delivery.attempts or self._is_over(delivery, now):
            return None
        return supply.wakes_at(delivery.due, delivery.expires, self._clock.sure_ms(now))

    # -- time -------------------------------------------------------------------------------------

    def is_clock_doubted(self, now: Now) -> bool:
        """Whether the wall clock has parted from its course and is not believed yet."""
        return self._clock.doubt_ends_ms(now) is not None

    def next_timer_ms(self) -> int | None:
        """Return the monotonic time of the earliest timer."""
        return self._timers.next_ms()

    def tick(self, now: Now) -> None:
        """Fire what is due, and look after sessions that have fallen silent."""
        if self._clock.look(now):
            self._set_anew(now)
        touched: dict[str, Queue] = {}
        for at_ms, kind, id in self._timers.take_due(now.mono_ms):
            if kind == "answer":
                if question := self._questions.close(id):
                    self._answer(question, Code.TIMEOUT, "no answer in time")
            elif kind == "wake":
                for queue in self.queues.values():
                    if queue.wake_ms == at_ms:
                        queue.wake_ms = None
                        touched[queue.name] = queue
            elif delivery := self.find(id):
                touched[delivery.queue.name] = delivery.queue
                self._fire(delivery, kind, now)
        for queue in touched.values():
            self._dispatch(queue, now)

    def _fire(self, delivery: Delivery, kind: Kind, now: Now) -> None:
        if kind == "expire":
            delivery.timed = False
            if not self._is_over(delivery, now):
                self._set_expiry(delivery, now)
            # In a consumer's hands it may have had its effect: the settlement decides.
            elif delivery.state is not IN_FLIGHT:
                self._end(delivery, EXPIRED, None, now)
        elif delivery.state is DELAYED:
            delivery.queue.add(delivery)
        elif delivery.state is RETRYING and delivery.wake_ms <= now.mono_ms:
            delivery.queue.retrying -= 1
            delivery.queue.again(delivery)

    def _set_anew(self, now: Now) -> None:
        """The clock has stepped: set those timers anew that stand for a time of the day. What waits
        for a retry or is due in seconds is waited for by the clock that does not step."""
        self._timers.keep(lambda _, kind, __: kind in ("due", "answer"))
        for delivery in (*self.open.values(), *self.backlog.values()):
            if delivery.timed:
                delivery.timed = False
                self._set_expiry(delivery, now)
        for queue in self.queues.values():
            if queue.sleepers.total:
                queue.wake_ms = now.mono_ms
                self._set_timer(0, "wake", queue.number, now)

    def beat(self, now: Now) -> None:
        """Ping silent sessions and end those that stay silent, and see whether the clock has
        stepped; once a second is enough."""
        self.tick(now)
        silent = []
        for session in self.sessions.values():
            silent_ms = now.mono_ms - session.heard_ms
            if silent_ms >= self.settings.bus.session_timeout_ms:
                silent.append(session)
            elif silent_ms >= HEARTBEAT_MS:
                self._send(session.peer, frames.PING, frames.Ping())
        self._end_together(silent, "silent", now, died=True)
        for queue in self.queues.values():
            if queue.on_trial:
                queue.acquit(now.mono_ms - self._trial_ms())
                self._dispatch(queue, now)

    def _end_together(self, sessions: list[Session], reason: str, now: Now, *, died: bool) -> None:
        """End sessions in the same moment: what one held does not go to the next."""
        for session in sessions:
            session.rights = NO_RIGHTS
            self._close(session)
        for session in sessions:
            self.gone(session.peer, now, reason, died=died)

    def farewell(self) -> None:
        """Say BYE to everyone; the shell stops reading before it calls this."""
        for peer in self.sessions:
            self._send(peer, frames.BYE, frames.Bye("the router stops"))

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
        self._end_together(revoked, "key revoked", now, died=False)
