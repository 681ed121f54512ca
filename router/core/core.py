"""The router's state machine. It is fed what happened and the time, and fills `out`.

Fed: frames of a peer, a transaction that is on disk, the time, a peer that is gone, a reload.
Filled: frames to send, the transaction that is gathering, events for those who watch.

The path of a message: `receive` -> `_publish` puts it into the gathering batch -> the store syncs
the batch -> `persisted` accepts it and queues its deliveries -> `_dispatch` hands them to
consumers with credit -> `_settle` makes them final in a later batch.

Invariants:
1. A delivery reaches a consumer, and ACCEPTED its sender, only after its batch is on disk.
2. Who a peer is comes from the key of the frame in hand, never from its routing id or its words.
3. Every accepted delivery is open in exactly one queue or final in the store.
"""

from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from proto import frames
from proto.errors import TEMPORARY, Code
from proto.frames import FrameError
from proto.message import TYPE_GRAMMAR, UNREADABLE, Message, decode_message
from proto.wording import text
from router.core import supply
from router.core.delivery import (
    DEAD,
    DELAYED,
    EXPIRED,
    IN_FLIGHT,
    OVERHEAD_BYTES,
    READY,
    RETRYING,
    SETTLED,
    Delivery,
    State,
)
from router.core.output import BacklogRow, Batch, Filed, OpenDelivery, Output
from router.core.permission import Rights
from router.core.policy import given_up, next_delay_ms
from router.core.questions import Question, Questions
from router.core.queue import Holding, Queue
from router.core.routing import Routes
from router.core.session import Session, Target
from router.core.timers import Kind, Timers
from router.settings import Destination, Permission, Settings

HEARTBEAT_MS: Final = 1_000
DELIVER_LENGTH_MAX: Final = 512
DELIVER_BYTES_MAX: Final = 1024 * 1024
TEMPORARY_RETRY_MS: Final = 1_000
ROUTED_MAX: Final = 10_000
NAME_SHARE: Final = 4  # of all sessions one name may have a quarter: a crowd shuts nobody out
QUESTIONS_MAX: Final = 1024  # open ones of one session
STALE_TIMERS_MIN: Final = 4096
FRONTIER_LAG_MAX: Final = 50_000
FILE_STEP: Final = 2_000
NO_RIGHTS: Final = Rights(Permission())
Refusal = tuple[str, str]  # code and sentence
Held = dict[str, Refusal]  # of one batch: subject -> why a message of it is to come again
_WORDS: Final = {SETTLED: "settled", DEAD: "dead", EXPIRED: "expired"}


class Now(NamedTuple):
    """The time: `wall_ms` since 1970 UTC for what is stored, `mono_ms` for what is waited for."""

    wall_ms: int
    mono_ms: int


class Core:
    """All state of the router. Every method takes the time; none of them blocks or waits."""

    def __init__(self, settings: Settings, bus: str, epoch: int, random: Random) -> None:
        """`bus` names the store, `epoch` counts the router's starts on it."""
        self.bus = bus
        self.epoch = epoch
        self.out = Output()
        self.sessions: dict[bytes, Session] = {}
        self.left: dict[str, int] = {}  # name -> ms UTC of the newest end of a session of it
        self.queues: dict[str, Queue] = {}
        self.open: dict[int, Delivery] = {}  # without those in the backlog, in order of acceptance
        self.backlog: dict[int, Delivery] = {}
        self.names: dict[bytes, str] = {}  # public key -> name
        self.store_full = False
        self.frontier_lag_max = FRONTIER_LAG_MAX  # messages: what a start has to look through
        self.observed = False
        self.counters = dict.fromkeys(
            ("accepted", "refused", "duplicates", "delivered", "settled", "retried", "dead",
             "expired", "replayed", "dropped", "late_replies"), 0,
        )  # fmt: skip
        self._writing: list[Batch] = []  # taken, and not yet known to be on disk
        self._recalled: set[int] = set()  # dead letters replayed or dropped, not yet on disk
        self._random = random
        self._next_n = 1
        self._next_delivery = 1
        self._timers = Timers()
        self._questions = Questions()
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
                self.gone(session.peer, now, "no permissions any more")

    @staticmethod
    def _close(session: Session) -> None:
        """Give nothing more of what a session has no right to; others may lose it as well, and
        what the first one gives back must not go to the next."""
        for destination, holding in session.holdings.items():
            if not session.rights.consume.match(destination):
                holding.window = 0

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
        self.body_bytes_max = settings.bus.body_bytes_max
        self._routes = Routes(settings.routes)
        self._rights = {name: Rights(p) for name, p in settings.permissions.items()}
        for name, destination in settings.destinations.items():
            if queue := self.queues.get(name):
                queue.configure(destination)
            else:
                self.add_queue(name, destination)

    def add_queue(self, name: str, destination: Destination) -> Queue:
        """Make a destination known."""
        queue = self.queues[name] = Queue(name, destination)
        return queue

    def restore(self, filed: Iterable[Filed], recent: list[OpenDelivery], next_n: int,
                next_delivery: int, now: Now) -> None:  # fmt: skip
        """Take up what the store holds as open: what is filed stays on the disk until its turn
        comes, the `recent` rest is brought into memory, by its numbers."""
        self._next_n = max(self._next_n, next_n)
        self._next_delivery = max(self._next_delivery, next_delivery)
        deliveries = [
            supply.delivery_of(row, self.queue_of(row.destination))
            for row in sorted(recent, key=lambda row: row.delivery)
        ]
        for run in filed:
            queue = self.queue_of(run.destination)
            queue.open += len(run.deliveries)
            queue.spill.find_on_disk(run.lane, run.deliveries, run.hashes)
        for delivery in deliveries:
            queue = delivery.queue
            queue.open += 1
            if supply.is_behind(delivery):
                self.out.batch.filed.append(supply.put_out(delivery))
            else:
                queue.resident_bytes[delivery.lane] += delivery.size
                self._enqueue(delivery, now)
        for queue in self.queues.values():
            self.out.batch.loads += supply.wanted(queue)

    def queue_of(self, name: str) -> Queue:
        """Return a queue; one whose destination was taken out of the configuration is kept."""
        return self.queues.get(name) or self.add_queue(name, Destination())

    # -- what peers say ---------------------------------------------------------------------------

    def receive(self, peer: bytes, key: bytes, parts: list[bytes], now: Now) -> None:
        """Take one multipart message from the socket; `key` is the authenticated public key."""
        try:
            payload = frames.read(parts, frames.ROUTER_READS)
        except FrameError as error:
            self._error(peer, error.code, error.sentence, error.verb)
            if session := self.sessions.get(peer):
                session.heard_ms = now.mono_ms
            return
        session = self.sessions.get(peer)
        if isinstance(payload, frames.Hello):
            self._hello(peer, key, payload, now)
            return
        if session is None:
            self._error(peer, Code.HELLO_REQUIRED, "say HELLO first", parts[0].decode("ascii"))
            return
        if session.key != key or (key and self.names.get(key) != session.name):
            self._error(peer, Code.REVOKED, "this key is not valid any more")
            self.gone(peer, now, "key revoked")
            return
        session.heard_ms = now.mono_ms
        self._handle(session, parts[0], payload, now)

    def _handle(self, session: Session, verb: bytes, payload: object, now: Now) -> None:
        match payload:
            case frames.PublishRaw(batch, messages):
                self._publish(session, batch, messages, now)
            case frames.Settle(settlements):
                self._settle(session, settlements, now)
            case frames.Credit(destination, window):
                self._credit(session, destination, window, now)
            case frames.RequestRaw():
                self._request(session, payload, now)
            case frames.Reply():
                self._reply(session, payload)
            case frames.Report(body):
                session.take_report(body, now.wall_ms)
            case frames.Ping() if verb == frames.PING:
                self._send(session.peer, frames.PONG, payload)
            case frames.Bye(reason):
                self.gone(session.peer, now, reason or "bye")

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
            self.gone(peer, now, "greeted again")
        if len(self.sessions) >= self.settings.bus.sessions_max:
            return self._error(peer, Code.TOO_MANY_SESSIONS, "no more sessions now", "HELLO")
        own = sum(1 for session in self.sessions.values() if session.name == name)
        if own >= max(1, self.settings.bus.sessions_max // NAME_SHARE):
            sentence = f"{name} has {own} sessions, and may have no more"
            return self._error(peer, Code.TOO_MANY_SESSIONS, sentence, "HELLO")
        session = Session(peer, key, name, hello.software, rights, now.wall_ms)
        session.heard_ms = now.mono_ms
        self.sessions[peer] = session
        self._observe("session", {"name": name, "state": "up", "software": hello.software})
        welcome = frames.Welcome(
            frames.PROTOCOL_VERSION, name, self.bus, self.epoch,
            self.settings.bus.body_bytes_max, frames.BATCH_LENGTH_MAX, HEARTBEAT_MS,
        )  # fmt: skip
        self._send(peer, frames.WELCOME, welcome)
        return None

    def gone(self, peer: bytes, now: Now, reason: str) -> None:
        """End a session: its deliveries return to the front of their lanes, in order."""
        session = self.sessions.pop(peer, None)
        if session is None:
            return
        self.left[session.name] = now.wall_ms
        for holding in session.holdings.values():
            self._let_go(holding, now)
        for holding in session.holdings.values():
            self._dispatch(holding.queue, now)
        for question in self._questions.close_all_of(peer):
            self._answer(question, Code.NO_CONSUMER, "who was asked went away")
        self._observe("session", {"name": session.name, "state": "down", "reason": reason})

    def unsent(self, peer: bytes, lost: list[list[bytes]], now: Now) -> None:
        """End the session of a peer that takes no frames. The questions among them were heard by
        nobody: asking another cannot have two effects."""
        asked: list[tuple[Question, frames.RequestRaw]] = []
        for verb, payload in lost:
            if verb == frames.REQUEST:
                request = frames.ROUTER_READS[verb].decode(payload)
                if question := self._questions.close(request.request):
                    asked.append((question, request))
        self.gone(peer, now, "unreachable")
        for question, request in asked:
            if asker := self.sessions.get(question.asker):
                left_ms = max(1, question.deadline_ms - now.mono_ms)
                again = (question.number, request.destination, left_ms, request.message)
                self._request(asker, frames.RequestRaw(*again), now)

    def _let_go(self, holding: Holding, now: Now) -> None:
        holding.queue.holdings.remove(holding)
        for delivery in reversed(list(holding.held.values())):
            self._vanished(delivery, now)

    # -- publishing -------------------------------------------------------------------------------

    def _publish(
        self, session: Session, number: int, messages: list[msgspec.Raw], now: Now
    ) -> None:
        refusals: list[frames.Refusal] = []
        held: Held = {}
        batch = self.out.batch
        for index, raw in enumerate(messages):
            refusal = self._accept(session, raw, batch, held, now)
            if refusal is not None:
                code, sentence = refusal
                retry = TEMPORARY_RETRY_MS if code in TEMPORARY else None
                refusals.append(frames.Refusal(index, code, sentence, retry))
        session.published += len(messages) - len(refusals)
        if refusals:
            self.counters["refused"] += len(refusals)
            self._send(session.peer, frames.REFUSED, frames.RefusedBatch(number, refusals))
            for refused in refusals:
                self._observe("refused", {"source": session.name, "code": refused.code})
        if len(refusals) < len(messages):
            batch.accepts.append((session.peer, number))

    def _accept(
        self, session: Session, raw: msgspec.Raw, batch: Batch, held: Held, now: Now
    ) -> Refusal | None:
        """Put one message into the batch, or return the code and sentence of its refusal.

        One that is to come again is noted in `held`: what follows it of its subject would overtake
        it, and is refused with it.
        """
        try:
            message = decode_message(raw)
        except RecursionError:
            return Code.BAD_MESSAGE, "nested too deeply"
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            is_text = isinstance(error, msgspec.DecodeError)
            return Code.BAD_MESSAGE, str(error) if is_text else "text is not UTF-8"
        priority = message.priority
        target = session.routed.get((message.type, priority))
        if target is None:
            target = self._route(session, message.type, priority)
        source = message.source
        if source != session.name and not session.rights.may_relay(source, self.bus):
            return Code.SOURCE_MISMATCH, "the source is not the name of this session"
        refusal = target.refusal or self._check_limits(message, target, now)
        if refusal := refusal or held.get(message.subject):
            if message.subject and refusal[0] in TEMPORARY:
                held[message.subject] = refusal
            return refusal
        n = self._next_n
        self._next_n = n + 1
        id = self._next_delivery
        self._next_delivery = id + len(target.queues)
        data, wall_ms, due = bytes(raw), now.wall_ms, message.not_before
        batch.messages.append(
            (n, source, message.id, message.subject, wall_ms, id, target.names,
             crc32(data), data)
        )  # fmt: skip
        for queue in target.queues:
            queue.open += 1
            crowded = queue.resident_bytes[priority] > queue.lane_bytes_max
            if crowded or queue.spill.total or queue.aside:
                row = (queue.name, priority, id, n, supply.hash_of(message.subject))
                if supply.spill(queue, message.subject, row):
                    batch.spilled.append(row)
                    id += 1
                    continue
            queue.resident_bytes[priority] += len(data) + OVERHEAD_BYTES
            batch.fresh.append(
                Delivery(
                    id, n, queue, message.subject, priority, data, wall_ms, due, message.expires
                )
            )
            id += 1
        return None

    def _route(self, session: Session, type: str, priority: int) -> Target:
        names = self._routes.find(session.name, type, priority)
        if not TYPE_GRAMMAR.fullmatch(type):
            target = Target((), refusal=(Code.BAD_MESSAGE, "the type is not dotted words"))
        elif not session.rights.publish.match(type):
            refusal = (Code.NOT_PERMITTED, f"{session.name} may not publish this type")
            target = Target((), refusal=refusal)
        elif not names:
            refusal = (Code.NO_ROUTE, "no route takes this type from this source")
            target = Target((), refusal=refusal)
        else:
            own = self._routes.body_bytes_max(session.name, type, priority)
            limit = self.body_bytes_max if own is None else min(own, self.body_bytes_max)
            queues = tuple(self.queues[name] for name in names)
            target = Target(queues, " ".join(names), None, limit)
        if len(session.routed) < ROUTED_MAX:  # a peer may invent types without end
            session.routed[type, priority] = target
        return target

    def _check_limits(self, message: Message, target: Target, now: Now) -> Refusal | None:
        if len(message.body) > target.body_bytes_max:
            return Code.BODY_TOO_LARGE, f"the body is over {target.body_bytes_max} bytes"
        if message.expires is not None and message.expires <= now.wall_ms:
            return Code.EXPIRED, "its time was over when it came"
        if self.store_full:
            return Code.STORE_FULL, "the router's disk is almost full"
        for queue in target.queues:
            if queue.open >= queue.settings.open_max:
                return Code.QUEUE_FULL, f"{queue.open} deliveries to {queue.name} are open"
        return None

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

    def find(self, id: int) -> Delivery | None:
        """Return an open delivery that is in memory."""
        return self.open.get(id) or self.backlog.get(id)

    def persisted(
        self, batch: Batch, duplicates: dict[int, int], now: Now,
        loaded: list[list[OpenDelivery]] | None = None,
    ) -> None:  # fmt: skip
        """The batch is on disk. `duplicates` are the n of messages that were accepted before,
        `loaded` is what each of its loads brought."""
        touched: dict[str, Queue] = {}
        self._writing.remove(batch)
        self.counters["accepted"] += len(batch.messages) - len(duplicates)
        self.counters["duplicates"] += len(duplicates)
        for delivery in batch.fresh:
            queue = delivery.queue
            if duplicates and delivery.n in duplicates:
                queue.open -= 1
                queue.resident_bytes[delivery.lane] -= delivery.size
                continue
            if delivery.filed:
                self._recalled.discard(delivery.id)
            else:
                queue.totals["accepted"] += 1
            touched[queue.name] = queue
            if not delivery.filed and delivery.due is None and delivery.expires is None:
                self.open[delivery.id] = delivery
                queue.add(delivery)
            else:
                self._enqueue(delivery, now)
        self._recalled.difference_update(row[0] for row in batch.dropped)
        if batch.spilled:
            self._note_spilled(batch.spilled, duplicates, touched)
        for load, rows in zip(batch.loads, loaded or (), strict=False):
            queue = touched[load.destination] = self.queues[load.destination]
            ready, loads = supply.take_up(queue, load, rows)
            self.out.batch.loads += loads
            for delivery in ready:
                self._enqueue(delivery, now)
        self._send_accepted(batch.accepts)
        if self.observed:
            self._observe_accepted(batch, duplicates)
        for queue in touched.values():
            self._dispatch(queue, now)

    def _note_spilled(
        self, rows: list[BacklogRow], duplicates: dict[int, int], touched: dict[str, Queue]
    ) -> None:
        for name, lane, id, n, _ in rows:
            queue = touched[name] = self.queues[name]
            if duplicates and n in duplicates:
                queue.open -= 1
                queue.spill.read(lane, id)
            else:
                queue.totals["accepted"] += 1
                queue.spill.synced[lane] = id

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
        (self.backlog if delivery.filed else self.open)[delivery.id] = delivery
        if delivery.expires is not None:
            if delivery.expires <= now.wall_ms:  # on its way to the disk, or while it was there
                self._end(delivery, EXPIRED, None, now)
                return
            self._set_expiry(delivery, now)
        if delivery.due is not None and delivery.due > now.wall_ms:
            if delivery.attempts:  # a retry: it is its subject's head already
                delivery.queue.add(delivery)
                if delivery.state is READY:
                    self._retry_at(delivery, delivery.due - now.wall_ms, now)
            else:
                delivery.state = DELAYED
                self._set_timer(delivery.due - now.wall_ms, "due", delivery.id, now)
        else:
            delivery.queue.add(delivery)

    # -- delivering -------------------------------------------------------------------------------

    def _credit(self, session: Session, destination: str, window: int, now: Now) -> None:
        queue = self.queues.get(destination)
        if queue is None:
            sentence = "no such destination"
            return self._error(session.peer, Code.UNKNOWN_DESTINATION, sentence, "CREDIT")
        if not session.rights.consume.match(destination):
            sentence = f"{session.name} may not consume {destination}"
            return self._error(session.peer, Code.NOT_PERMITTED, sentence, "CREDIT")
        holding = session.holdings.get(destination)
        if holding is None:
            holding = session.holdings[destination] = Holding(session, queue)
            queue.holdings.append(holding)
        holding.window = window
        self._dispatch(queue, now)
        return None

    def _dispatch(self, queue: Queue, now: Now) -> None:
        for holding, deliveries in queue.take():
            self.counters["delivered"] += len(deliveries)
            self._send_deliveries(holding, deliveries, now.wall_ms)
        if queue.spill.total:
            self.out.batch.loads += supply.wanted(queue)

    def _send_deliveries(self, holding: Holding, deliveries: list[Delivery], wall_ms: int) -> None:
        group: list[frames.DeliveredRaw] = []
        size = 0
        for delivery in deliveries:
            raw = delivery.raw
            delivery.delivered_at = wall_ms
            group.append(frames.DeliveredRaw(delivery.id, delivery.attempts, msgspec.Raw(raw)))
            size += len(raw)
            if len(group) >= DELIVER_LENGTH_MAX or size >= DELIVER_BYTES_MAX:
                self._send_group(holding, group)
                group, size = [], 0
            if self.observed:
                self._observe_delivery("delivered", delivery, None)
        if group:
            self._send_group(holding, group)

    def _send_group(self, holding: Holding, group: list[frames.DeliveredRaw]) -> None:
        payload = frames.DeliverRaw(holding.queue.name, group)
        self._send(holding.session.peer, frames.DELIVER, payload)

    # -- settling ---------------------------------------------------------------------------------

    def _settle(self, session: Session, settlements: list[frames.Settlement], now: Now) -> None:
        touched: dict[str, Queue] = {}
        foreign = 0
        for settlement in settlements:
            delivery = self.open.get(settlement.delivery) or self.backlog.get(settlement.delivery)
            if delivery is None:
                continue  # settled before: a repeat does no harm
            queue = delivery.queue
            holder = delivery.holder
            if holder is not None and holder.session is not session:
                foreign += 1
                continue
            if holder is None and not self._may_settle_late(session, delivery, settlement):
                continue
            touched[queue.name] = queue
            if settlement.outcome == frames.ACK:
                session.acked += 1
                self._end(delivery, SETTLED, settlement.note, now)
            elif settlement.outcome == frames.RETRY:
                self._retry(delivery, settlement.after_ms, settlement.note, now)
            else:
                note = settlement.note or text("router.dead_rejected")
                self._end(delivery, DEAD, note, now)
        if foreign:
            sentence = f"{foreign} of these deliveries are in another session's hands"
            self._error(session.peer, Code.NOT_YOURS, sentence, "SETTLE")
        for queue in touched.values():
            self._dispatch(queue, now)

    def _may_settle_late(
        self, session: Session, delivery: Delivery, settlement: frames.Settlement
    ) -> bool:
        """An ack that comes after its session was lost saves the partner a repeat."""
        return (
            settlement.outcome == frames.ACK
            and delivery.state in (READY, RETRYING)
            and session.rights.consume.match(delivery.queue.name)
        )

    def _end(self, delivery: Delivery, state: State, note: str | None, now: Now) -> None:
        queue = delivery.queue
        if delivery.state is IN_FLIGHT:
            queue.release(delivery)
        elif delivery.state is RETRYING:
            queue.retrying -= 1
        delivery.state = state
        word = _WORDS[state]
        queue.totals[word] += 1
        self.counters[word] += 1
        self.out.batch.outcomes.append(
            (delivery.id, delivery.n, queue.name, state, delivery.attempts,
             delivery.delivered_at, now.wall_ms, note)
        )  # fmt: skip
        if self.observed:
            self._observe_delivery(word, delivery, note)
        if delivery.filed:
            del self.backlog[delivery.id]
            self.out.batch.unfiled.append(supply.backlog_row(delivery))
        else:
            del self.open[delivery.id]
        queue.finish(delivery)

    def _retry(self, delivery: Delivery, after_ms: int | None, note: str | None, now: Now) -> None:
        queue = delivery.queue
        backoff = queue.settings.backoff
        reason = given_up(backoff, delivery.attempts, now.wall_ms - delivery.accepted_at)
        if delivery.expires is not None and delivery.expires <= now.wall_ms:
            self._end(delivery, EXPIRED, note, now)
        elif reason is not None:
            self._end(delivery, DEAD, f"{reason}: {note}" if note else reason, now)
        else:
            if after_ms is None:
                after_ms = next_delay_ms(backoff, delivery.attempts, self._random)
            if delivery.state is IN_FLIGHT:
                queue.release(delivery)
            self.counters["retried"] += 1
            delivery.due = now.wall_ms + after_ms
            self.out.batch.attempts.append(
                (delivery.id, delivery.attempts, now.wall_ms, "retry", note, delivery.due)
            )
            if self.observed:
                self._observe_delivery("retry", delivery, note)
            self._set_expiry(delivery, now)  # it may have fired in vain, and the clock gone back
            self._retry_at(delivery, after_ms, now)

    def _retry_at(self, delivery: Delivery, after_ms: int, now: Now) -> None:
        if after_ms <= 0:
            delivery.queue.again(delivery)
            return
        delivery.state = RETRYING
        delivery.queue.retrying += 1
        self._set_timer(after_ms, "due", delivery.id, now)

    def _vanished(self, delivery: Delivery, now: Now) -> None:
        """Its consumer is gone: it may or may not have reached the partner, so it goes again."""
        delivery.queue.release(delivery)
        backoff = delivery.queue.settings.backoff
        if delivery.expires is not None and delivery.expires <= now.wall_ms:
            return self._end(delivery, EXPIRED, None, now)  # its timer has fired in vain
        if delivery.attempts >= backoff.attempts_max:
            return self._end(delivery, DEAD, text("router.dead_vanished"), now)
        self.out.batch.attempts.append(
            (delivery.id, delivery.attempts, now.wall_ms, "vanished", None, None)
        )
        self._set_expiry(delivery, now)
        return delivery.queue.again(delivery)

    # -- what an operator may do ------------------------------------------------------------------

    def replay(self, dead: list[OpenDelivery], reason: str, now: Now) -> int:
        """Open dead letters again, in the order given, under their old delivery ids and with all
        attempts before them. Returns how many; those already on their way are passed over."""
        batch = self.out.batch
        count = 0
        for row in dead:
            queue = self.queues.get(row.destination)
            if queue is None or row.delivery in self._recalled or self.find(row.delivery):
                continue
            delivery = supply.delivery_of(row, queue)
            delivery.filed = True
            queue.spill.pass_by(delivery.lane, delivery.id)
            queue.resident_bytes[delivery.lane] += delivery.size
            delivery.attempts, delivery.accepted_at = 0, now.wall_ms  # both begin anew
            batch.reopened.append((row.delivery, queue.name))
            batch.filed.append(supply.backlog_row(delivery))
            batch.attempts.append((row.delivery, 0, now.wall_ms, "replayed", reason, None))
            batch.fresh.append(delivery)
            self._recalled.add(row.delivery)
            queue.open += 1
            queue.totals["dead"] -= 1
            count += 1
        self.counters["replayed"] += count
        return count

    def drop(self, dead: list[tuple[int, str]], reason: str) -> int:
        """Give dead letters (delivery, destination) up for good; the reason stays with them."""
        count = 0
        for delivery, destination in dead:
            queue = self.queues.get(destination)
            if queue is None or delivery in self._recalled or self.find(delivery):
                continue
            self.out.batch.dropped.append((delivery, destination, reason))
            self._recalled.add(delivery)
            queue.totals["dead"] -= 1
            queue.totals["dropped"] += 1
            count += 1
        self.counters["dropped"] += count
        return count

    def hold(self, destination: str, reason: str | None, now: Now) -> bool:
        """Deliver nothing to a destination until it is released (`reason` None); it still
        accepts. Returns False when there is no such destination."""
        queue = self.queues.get(destination)
        if queue is None:
            return False
        queue.hold = reason
        self.out.batch.holds[destination] = reason
        self._dispatch(queue, now)
        return True

    # -- request and reply ------------------------------------------------------------------------

    def _request(self, session: Session, request: frames.RequestRaw, now: Now) -> None:
        question = Question(session.peer, request.request, b"", now.mono_ms + request.timeout_ms)
        queue = self.queues.get(request.destination)
        if not session.rights.ask.match(request.destination):
            sentence = f"{session.name} may not ask {request.destination}"
            return self._answer(question, Code.NOT_PERMITTED, sentence)
        try:
            message = decode_message(request.message)
        except UNREADABLE:
            return self._answer(question, Code.BAD_MESSAGE, "the question is not a message")
        if message.source != session.name:
            return self._answer(question, Code.SOURCE_MISMATCH, "the source is not your name")
        if queue is None or not queue.holdings:
            return self._answer(question, Code.NO_CONSUMER, "nobody serves this destination now")
        if len(message.body) > self.body_bytes_max:
            sentence = f"the body is over {self.body_bytes_max} bytes"
            return self._answer(question, Code.BODY_TOO_LARGE, sentence)
        if (asking := self._questions.asked_by(session.peer)) >= QUESTIONS_MAX:
            return self._answer(question, Code.QUEUE_FULL, f"{asking} questions are open")
        number = self._questions.open(question)
        server = queue.holdings[number % len(queue.holdings)].session
        question.server = server.peer
        self._set_timer(request.timeout_ms, "answer", number, now)
        forwarded = frames.RequestRaw(
            number, request.destination, request.timeout_ms, request.message
        )
        return self._send(server.peer, frames.REQUEST, forwarded)

    def _reply(self, session: Session, reply: frames.Reply) -> None:
        question = self._questions.get(reply.request)
        # The right to answer is minted by the question: nobody else may.
        if question is None or question.server != session.peer:
            self.counters["late_replies"] += 1
            return
        self._questions.close(reply.request)
        answer = frames.Reply(
            question.number, reply.code, reply.sentence, reply.content_type, reply.body
        )
        self._send(question.asker, frames.REPLY, answer)

    def _answer(self, question: Question, code: str, sentence: str) -> None:
        self._send(question.asker, frames.REPLY, frames.Reply(question.number, code, sentence))

    # -- time -------------------------------------------------------------------------------------

    def next_timer_ms(self) -> int | None:
        """Return the monotonic time of the earliest timer."""
        return self._timers.next_ms()

    def tick(self, now: Now) -> None:
        """Fire what is due, and look after sessions that have fallen silent."""
        touched: dict[str, Queue] = {}
        for kind, id in self._timers.take_due(now.mono_ms):
            if kind == "answer":
                if question := self._questions.close(id):
                    self._answer(question, Code.TIMEOUT, "no answer in time")
            elif delivery := self.find(id):
                touched[delivery.queue.name] = delivery.queue
                self._fire(delivery, kind, now)
        for queue in touched.values():
            self._dispatch(queue, now)

    def _fire(self, delivery: Delivery, kind: Kind, now: Now) -> None:
        if kind == "expire":
            delivery.timed = False
            # In a consumer's hands it may have had its effect: the settlement decides.
            if delivery.state is not IN_FLIGHT:
                self._end(delivery, EXPIRED, None, now)
        elif delivery.state is DELAYED:
            delivery.queue.add(delivery)
        elif delivery.state is RETRYING:
            delivery.queue.retrying -= 1
            delivery.queue.again(delivery)

    def beat(self, now: Now) -> None:
        """Ping silent sessions and end those that stay silent; once a second is enough."""
        silent = []
        for session in self.sessions.values():
            silent_ms = now.mono_ms - session.heard_ms
            if silent_ms >= self.settings.bus.session_timeout_ms:
                silent.append(session)
            elif silent_ms >= HEARTBEAT_MS:
                self._send(session.peer, frames.PING, frames.Ping())
        self._end_together(silent, "silent", now)

    def _end_together(self, sessions: list[Session], reason: str, now: Now) -> None:
        """End sessions in the same moment: what one held does not go to the next."""
        for session in sessions:
            session.rights = NO_RIGHTS
            self._close(session)
        for session in sessions:
            self.gone(session.peer, now, reason)

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
        self._end_together(revoked, "key revoked", now)

    def _set_expiry(self, delivery: Delivery, now: Now) -> None:
        """See to it that a delivery with an end to its time has a timer, and one only."""
        if delivery.expires is not None and not delivery.timed:
            delivery.timed = True
            self._set_timer(delivery.expires - now.wall_ms, "expire", delivery.id, now)

    def _set_timer(self, after_ms: int, kind: Kind, id: int, now: Now) -> None:
        self._timers.set(now.mono_ms + after_ms, kind, id)
        live = len(self.open) + len(self.backlog) + len(self._questions)
        if len(self._timers) > 4 * live + STALE_TIMERS_MIN:
            self._timers.keep(self._is_live)

    def _is_live(self, kind: Kind, id: int) -> bool:
        return id in self._questions if kind == "answer" else self.find(id) is not None

    # -- output -----------------------------------------------------------------------------------

    def _send(self, peer: bytes, verb: bytes, payload: object) -> None:
        self.out.sends.append((peer, [verb, frames.encode(payload)]))

    def _error(self, peer: bytes, code: str, sentence: str, verb: str = "") -> None:
        self._send(peer, frames.ERROR, frames.Error(code, sentence, verb))

    def _observe(self, topic: str, event: dict[str, object]) -> None:
        if self.observed:
            self.out.events.append((topic, event))

    def _observe_delivery(self, topic: str, delivery: Delivery, note: str | None) -> None:
        event: dict[str, object] = {
            "delivery": delivery.id, "destination": delivery.queue.name,
            "subject": delivery.subject, "attempt": delivery.attempts, "note": note,
        }  # fmt: skip
        self._observe(topic, event)
