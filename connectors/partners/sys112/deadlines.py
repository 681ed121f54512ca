"""The 30 seconds of Government decree 1931: a dispatcher confirms each card of System-112
(docs/domain.md 4.3).

The watch has a queue of its own, `deadlines`, with the cards, their ends and the statuses of calls:
it hears of them even while System-112 or the ambulance is down. For each card it sends itself a
message that comes when the time is over, and then says once, in the log and as `deadline.missed.v1`
to the administrator, that nobody has confirmed the card.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from connectors.partners.sys112.memory import Memory, at
from connectors.partners.sys112.words import Words
from connectors.runtime.bus import taking
from connectors.runtime.bus.intake import settle
from connectors.runtime.bus.taking import Takes
from connectors.runtime.door.door import REJECTED_KEPT_MS, message_id
from connectors.runtime.log import LOG
from connectors.runtime.partner.window import Window
from proto import schemas
from proto.client import BusClient, Delivery, Retry, tell_granting
from proto.message import Message, Priority, now_ms
from proto.note import coded
from proto.peer import Granting
from proto.wording import text

DESTINATION: Final = "deadlines"
CREDIT: Final = 64
# A status that happened in time may come a little later: the ambulance repeats after 3 s what it
# could not bring, and after a start of ours the queue has it still.
GRACE_S: Final = 5.0
Publish = Callable[[Sequence[Message]], Awaitable[None]]


class _Watched(schemas.Body, frozen=True, kw_only=True):
    """Of a card what the watch needs: its route hands out no more."""

    id112: schemas.Id112
    state: schemas.CardState
    repeat_of: schemas.Short | None = None


class Deadlines:
    """The watch of one connector. `name` is the source of its messages; a status of `ignored` (one
    that the ambulance system sends by itself) confirms nothing. With `within_s` 0 it only empties
    its queue."""

    takes: ClassVar[Takes] = {
        "incident.card.v1": (_Watched, "watch"),
        "incident.cancelled.v1": (schemas.IncidentCancelled, "end"),
        "call.status.v1": (schemas.StatusEvent, "hear"),
        "deadline.timer.v1": (schemas.DeadlineTimer, "judge"),
    }

    def __init__(
        self,
        name: str,
        publish: Publish,
        memory: Memory,
        words: Words,
        within_s: float,
        ignored: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._publish = publish
        self._memory = memory
        self._words = words
        self._within_s = within_s
        self._ignored = frozenset(ignored)
        self._clock = clock
        self._began = clock()
        self._times = Window(within_s)
        self._counts = {"watched": 0, "confirmed": 0, "late": 0, "missed": 0, "not_needed": 0}

    async def run(self, bus: BusClient) -> None:
        """Take what comes, as long as the connector runs. Raises BusError."""
        bus.on_granting = partial(self._tell_granting, bus)
        consumer = bus.consume(DESTINATION, credit=CREDIT)
        try:
            async for delivery in consumer:
                await settle(delivery, self._handle)
        finally:
            consumer.close()

    def figures(self) -> dict[str, Any]:
        """Return what became of the cards since the start, and the times of the last hour."""
        return {**self._counts, **self._times.report()}

    async def take(self, message: Message) -> str | None:
        """Note what a message says; return a note. Raises Retry or Reject."""
        return await taking.take(self, self.takes, message, message)

    async def _handle(self, delivery: Delivery) -> str | None:
        return await self.take(delivery.message)

    async def end(self, ended: schemas.IncidentCancelled, _: Message) -> str:
        """Whose card is over needs no confirmation."""
        self._memory.excuse(ended.id112)
        return coded("sys112.not_needed")

    async def watch(self, card: _Watched, message: Message) -> str:
        """Begin to watch a card. Raises NotAccepted."""
        if not self._within_s:
            return coded("sys112.unwatched")
        if self._words.is_over(card.state):
            self._memory.excuse(card.id112)
            return coded("sys112.not_needed")
        if not self._memory.watches(card.id112):
            # The timer first: killed in between, the card comes again, and it is the same timer.
            await self._publish([self._timer(card.id112, message.time / 1000)])
            self._counts["watched"] += 1
        self._memory.watch(card.id112, card.repeat_of)
        return coded("sys112.watched", within=f"{self._within_s:g}")

    def _timer(self, id112: str, taken_s: float) -> Message:
        timer = schemas.DeadlineTimer(id112=id112, taken_at=at(taken_s), within_s=self._within_s)
        # Under a subject of its own: what waits must not hold up the card's cancellation. A
        # correction of the card makes the same id, so that the first one's time holds.
        return Message.new(
            "deadline.timer.v1",
            self._name,
            timer,
            subject=f"deadline-112-{id112}",
            id=message_id("deadline.timer.v1", id112),
            priority=Priority.ROUTINE,
            not_before=int((taken_s + self._within_s + GRACE_S) * 1000),
        )

    async def hear(self, status: schemas.StatusEvent, _: Message) -> str:
        """Note whether a status confirms a card."""
        if self._words.is_told(status):
            self._memory.note_told(status)
        if status.id112 is None or status.code in self._ignored:
            return coded("sys112.no_confirmation")
        # Whose clock is ahead has still confirmed by now.
        self._memory.confirm(status.id112, min(status.occurred_at.timestamp(), self._clock()))
        return coded("sys112.confirmation")

    async def judge(self, timer: schemas.DeadlineTimer, _: Message) -> str:
        """The time of a card is over. Raises Retry or NotAccepted."""
        now = self._clock()
        awake_s = now - self._began
        if 0 <= awake_s < GRACE_S:  # below 0 the clock was set back, and we are awake for long
            raise Retry(coded("sys112.waking"), GRACE_S - awake_s)
        taken_s, due_s = timer.taken_at.timestamp(), timer.taken_at.timestamp() + timer.within_s
        # What was heard before is forgotten: say nothing. A file of the future tells no time.
        if taken_s < self._memory.made_s <= now:
            return coded("sys112.forgotten")
        standing = self._memory.watched(timer.id112)
        if standing.confirmed is not None:
            self._times.add(max(0.0, standing.confirmed - taken_s))
            if standing.confirmed <= due_s:
                self._counts["confirmed"] += 1
                return coded("sys112.confirmed")
        if standing.excused:
            self._counts["not_needed"] += 1
            return coded("sys112.not_needed")
        await self._alarm(timer, due_s)
        self._counts["missed" if standing.confirmed is None else "late"] += 1
        return coded("sys112.missed")

    async def _alarm(self, timer: schemas.DeadlineTimer, due_s: float) -> None:
        missed = schemas.DeadlineMissed(
            id112=timer.id112,
            within_s=timer.within_s,
            taken_at=timer.taken_at,
            due_at=at(due_s),
            recorded_at=at(self._clock()),
        )
        message = Message.new(
            "deadline.missed.v1",
            self._name,
            missed,
            subject=f"112-{timer.id112}",
            id=message_id("deadline.missed.v1", timer.id112),
            priority=Priority.URGENT,
            expires=now_ms() + REJECTED_KEPT_MS,
        )
        await self._publish([message])
        LOG.error(text("sys112.unconfirmed", card=timer.id112, within=f"{timer.within_s:g}"))

    def _tell_granting(self, bus: BusClient, granting: Granting) -> None:
        """The router does not give us the queue: the region's routes are older than this watch."""
        if granting.destination == DESTINATION and granting.code:
            LOG.warning(text("sys112.no_watch", queue=DESTINATION, code=granting.code))
        else:
            tell_granting(bus, granting)
