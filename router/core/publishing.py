"""Publishing: each message is put into the gathering batch, or refused by name."""

from typing import Final
from zlib import crc32

import msgspec

from proto import frames
from proto.errors import TEMPORARY, Code
from proto.message import TYPE_GRAMMAR, UNREADABLE, Message, decode_message, fault_of, overlong
from router.core import supply
from router.core.clock import Now
from router.core.delivery import OVERHEAD_BYTES, Delivery
from router.core.output import Batch
from router.core.session import Session, Target
from router.core.sleepers import ASLEEP
from router.core.state import CoreState, Refusal

TEMPORARY_RETRY_MS: Final = 1_000
ROUTED_MAX: Final = 10_000
TIME_MS_MAX: Final = 253_402_300_799_999  # the last one that calendars know
NOT_BEFORE_MS_MAX: Final = 10 * 366 * 24 * 3600 * 1000
Held = dict[str, Refusal]  # of one batch: subject -> why a message of it is to come again
ROW_BYTES: Final = 512  # what a message takes on the disk besides its own


class Publishing(CoreState):
    """PUBLISH, and REFUSED."""

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
            self.faults += sum(1 for refused in refusals if refused.retry_after_ms is None)
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
        except UNREADABLE as error:
            return Code.BAD_MESSAGE, fault_of(error)
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
        batch.size += len(data)
        until = due and supply.wakes_at(due, message.expires, self._clock.sure_ms(now))
        self.room_bytes -= len(data) + ROW_BYTES
        batch.messages.append(
            (n, source, message.id, message.subject, wall_ms, id, target.names,
             crc32(data), data)
        )  # fmt: skip
        usual = priority and source == session.name
        sender = source if usual else supply.sender_of(source, priority)
        for queue in target.queues:
            queue.open += 1
            queue.open_of[sender] = queue.open_of.get(sender, 0) + 1
            if until:
                batch.spilled.append((queue.name, priority + ASLEEP, id, n, until))
                id += 1
                continue
            crowded = queue.resident_bytes[priority] > queue.lane_bytes_max
            if crowded or queue.spill.total or queue.aside:
                row = (queue.name, priority, id, n, supply.hash_of(message.subject))
                if supply.spill(queue, message.subject, row):
                    batch.spilled.append(row)
                    id += 1
                    continue
            queue.resident_bytes[priority] += len(data) + OVERHEAD_BYTES
            delivery = Delivery(
                id, n, queue, message.subject, priority, data, wall_ms, now.mono_ms, due,
                message.expires,
            )  # fmt: skip
            delivery.sender = sender
            batch.fresh.append(delivery)
            id += 1
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
        if len(message.body) > target.body_bytes_max:
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
        urgent_bytes = 0 if message.priority else self.urgent_bytes
        lacking = len(message.body) > self.room_bytes + urgent_bytes
        if lacking or (self.store_full and not urgent_bytes):
            return Code.STORE_FULL, "the router's disk is almost full"
        for queue in target.queues:
            if queue.open >= queue.easy_max:
                sender = supply.sender_of(message.source, message.priority)
                if sentence := queue.refuses(message.priority, sender):
                    return Code.QUEUE_FULL, sentence
        return None
