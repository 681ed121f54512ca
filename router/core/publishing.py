"""Publishing: each message is put into the gathering batch, or refused by name."""

from typing import Final
from zlib import crc32

from proto import frames
from proto.errors import TEMPORARY, Code
from proto.message import (
    BYTES_MAX,
    TYPE_GRAMMAR,
    UNREADABLE,
    Message,
    decode_message,
    fault_of,
    overlong,
)
from router.core import supply
from router.core.clock import Now
from router.core.delivery import OVERHEAD_BYTES, Delivery
from router.core.output import Batch
from router.core.queue import Queue
from router.core.session import Held, Refusal, Session, Target, Unfinished
from router.core.sleepers import ASLEEP
from router.core.state import CoreState

TEMPORARY_RETRY_MS: Final = 1_000
ROUTED_MAX: Final = 10_000
TIME_MS_MAX: Final = 253_402_300_799_999  # the last one that calendars know
NOT_BEFORE_MS_MAX: Final = 10 * 366 * 24 * 3600 * 1000
SLICE_LENGTH: Final = 512  # of a PUBLISH so much is looked at in one go: messages
SLICE_BYTES: Final = 512 * 1024  # and bytes; the message that passes it is the last
REFUSED_A_FAULT: Final = 16  # a mistake in a large batch is one mistake, but each costs some work
OVERLONG_MIN: Final = min(BYTES_MAX.values())  # no field is longer than all of the envelope
NOWHERE: Final = Target(())
ROW_BYTES: Final = 512  # what a message takes on the disk besides its own


class Publishing(CoreState):
    """PUBLISH, and REFUSED."""

    slice_length = SLICE_LENGTH
    slice_bytes = SLICE_BYTES

    def proceed(self, peer: bytes, now: Now) -> bool:
        """Look at the next slice of the PUBLISH that a peer has unfinished; return whether there is
        more of it."""
        session = self.sessions.get(peer)
        if session is None or session.unfinished is None:
            return False
        session.heard_ms = now.mono_ms
        return self._publish(session, session.unfinished, now)

    def _publish(self, session: Session, work: Unfinished, now: Now) -> bool:
        """Look at a slice of a PUBLISH: what is large is looked at in several, with others' frames
        and writes to the disk in between. Return whether there is more of it. Its sender is
        answered at the end, and its messages have their order: neither sees the slices."""
        self._look_at_slice(session, work, now)
        if work.at < len(work.messages):
            session.unfinished = work
            return True
        session.unfinished = None
        self._answer_publish(session, work)
        return False

    def _look_at_slice(self, session: Session, work: Unfinished, now: Now) -> None:
        """Put each message into the batch, or note why it is refused."""
        messages, begin, refusals, held = work.messages, work.at, work.refusals, work.held
        end = min(begin + self.slice_length, len(messages))
        if begin or end < len(messages):
            messages = messages[begin:end]
        work.at, left = end, self.slice_bytes
        batch, name, routed = self.out.batch, session.name, session.routed
        type, priority, target, easy = "", -1, NOWHERE, 0
        for index, raw in enumerate(messages, begin):
            if left <= 0:
                work.at = index
                break
            data = b"" + raw
            size = len(data)
            left -= size
            try:
                message = decode_message(data)
            except UNREADABLE as error:
                refusals.append(_refused(index, (Code.BAD_MESSAGE, fault_of(error))))
                continue
            if message.type != type or message.priority != priority:
                type, priority = message.type, message.priority
                target = routed.get((type, priority)) or self._route(session, type, priority)
                easy = 0 if self.store_full else target.easy()
            source, due = message.source, message.not_before
            is_easy = (  # as nearly all are: so far from every limit that a few comparisons show it
                easy > 0
                and size <= target.body_bytes_max
                and size <= self.room_bytes
                and size - len(message.body) <= OVERLONG_MIN
                and message.time <= TIME_MS_MAX
                and due is None
                and message.expires is None
                and source == name
                and not held
            )
            if not is_easy and (refusal := self._judge(session, message, target, held, now)):
                refusals.append(_refused(index, refusal))
                continue
            easy -= 1
            usual = priority and source == name
            sender = name if usual else supply.sender_of(source, priority)
            # It is accepted. In line, since this is the hot path.
            n, id, subject = self._next_n, self._next_delivery, message.subject
            self._next_n, self._next_delivery = n + 1, id + len(target.queues)
            batch.size += size
            self.room_bytes -= size + ROW_BYTES
            row = (n, source, message.id, subject, now.wall_ms, id, target.names, crc32(data), data)
            batch.messages.append(row)
            for queue in target.queues:
                queue.open += 1
                try:
                    queue.open_of[sender] += 1
                except KeyError:
                    queue.open_of[sender] = 1
                crowded = queue.resident_bytes[priority] > queue.lane_bytes_max
                is_tight = crowded or due or queue.spill.total or queue.aside
                if not (is_tight and self._put_out(message, queue, id, n, batch, now)):
                    queue.resident_bytes[priority] += size + OVERHEAD_BYTES
                    batch.fresh.append(Delivery(
                        id, n, queue.name, subject, priority, data, now.wall_ms, now.mono_ms, due,
                        message.expires, 0, sender,
                    ))  # fmt: skip
                id += 1

    def _put_out(
        self, message: Message, queue: Queue, id: int, n: int, batch: Batch, now: Now
    ) -> bool:
        """Leave a new delivery to the disk, if it is not due for long or there is no room for it in
        memory; return whether that was done."""
        priority, subject, due = message.priority, message.subject, message.not_before
        until = due and supply.wakes_at(due, message.expires, self._clock.sure_ms(now))
        if until:
            batch.spilled.append((queue.name, priority + ASLEEP, id, n, until))
            return True
        crowded = queue.resident_bytes[priority] > queue.lane_bytes_max
        if crowded or queue.spill.total or queue.aside:
            row = (queue.name, priority, id, n, supply.hash_of(subject))
            if supply.spill(queue, subject, row):
                batch.spilled.append(row)
                return True
        return False

    def _answer_publish(self, session: Session, work: Unfinished) -> None:
        """All of a PUBLISH has been looked at: say what is refused, and have the rest accepted when
        it is on disk, with the batch that has the last of it."""
        refusals, count = work.refusals, len(work.messages)
        session.published += count - len(refusals)
        if refusals:
            self.counters["refused"] += len(refusals)
            if wrong := sum(1 for refused in refusals if refused.retry_after_ms is None):
                self.faults += 1 + wrong // REFUSED_A_FAULT
            self._send(session.peer, frames.REFUSED, frames.RefusedBatch(work.number, refusals))
            for refused in refusals:
                self._observe("refused", {"source": session.name, "code": refused.code})
        if len(refusals) < count:
            self.out.batch.accepts.append((session.peer, work.number))

    def _judge(
        self, session: Session, message: Message, target: Target, held: Held, now: Now
    ) -> Refusal | None:
        """Return the code and sentence of a message's refusal, or None.

        One that is to come again is noted in `held`: what follows it of its subject would overtake
        it, and is refused with it.
        """
        source = message.source
        if source != session.name and not session.rights.may_relay(source, self.bus):
            return Code.SOURCE_MISMATCH, "the source is not the name of this session"
        refusal = target.refusal or self._check_limits(message, target, now)
        if refusal := refusal or held.get(message.subject):
            if message.subject and refusal[0] in TEMPORARY:
                held[message.subject] = refusal
            return refusal
        return None

    def _route(self, session: Session, type: str, priority: int) -> Target:
        names = self._routes.find(session.name, type, priority)
        if not TYPE_GRAMMAR.fullmatch(type):
            target = Target((), refusal=(Code.BAD_MESSAGE, "type: not dotted words"))
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
        body_size = len(message.body)
        if body_size > target.body_bytes_max:
            return Code.BODY_TOO_LARGE, f"the body is over {target.body_bytes_max} bytes"
        if message.time > TIME_MS_MAX:
            return Code.BAD_MESSAGE, "time: beyond the year 9999"
        if message.not_before is not None and (
            message.not_before > max(message.time, now.wall_ms) + NOT_BEFORE_MS_MAX
        ):
            return Code.BAD_MESSAGE, "not_before: more than ten years ahead"
        if fault := overlong(message):
            return Code.BAD_MESSAGE, fault
        if message.expires is not None and message.expires <= self._clock.sure_ms(now):
            return Code.EXPIRED, "its time was over when it came"
        if body_size > self.room_bytes or self.store_full:
            urgent_bytes = 0 if message.priority else self.urgent_bytes
            if not urgent_bytes or body_size > self.room_bytes + urgent_bytes:
                return Code.STORE_FULL, "the router's disk is almost full"
        for queue in target.queues:
            if queue.open >= queue.easy_max:
                sender = supply.sender_of(message.source, message.priority)
                if sentence := queue.refuses(message.priority, sender):
                    return Code.QUEUE_FULL, sentence
        return None


def _refused(index: int, refusal: Refusal) -> frames.Refusal:
    code, sentence = refusal
    return frames.Refusal(index, code, sentence, TEMPORARY_RETRY_MS if code in TEMPORARY else None)
