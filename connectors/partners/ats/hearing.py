"""What the exchange says, kept and told to the bus. Nothing here waits: the exchange would not.

Each event is understood (`calls.py`, `groups.py`), what it means is put down for the bus
(`unsent.py`), and what is known of the call is kept (`memory.py`), in this order: whatever is lost
with this process is told again, under the same ids.
"""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from typing import Final

from connectors.partners.ats import telling
from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook, CallEvent, moment_of
from connectors.partners.ats.gap import catch_up
from connectors.partners.ats.groups import WANTED, GroupBook
from connectors.partners.ats.joining import Joining
from connectors.partners.ats.legs import remember_member
from connectors.partners.ats.memory import LiveCalls
from connectors.partners.ats.unsent import Unsent
from connectors.runtime.bus.outbox import Outbox
from connectors.runtime.log import LOG
from proto.client import BusClient
from proto.message import Message
from proto.wording import text

BATCH: Final = 2_000  # messages in the hands of the bus
GAP_TOLD_S: Final = 2.0  # a shorter one is only told with the calls it touches


class Hearing:
    """The books of one exchange, and what waits for the bus."""

    def __init__(
        self, source: str, books: tuple[CallBook, GroupBook], memory: LiveCalls, unsent: Unsent,
        bus: BusClient,
    ) -> None:  # fmt: skip
        self.calls, self.groups = books
        self.memory, self.unsent = memory, unsent
        self.outbox = Outbox(bus, BATCH)
        self._batch: list[Message] = []  # in hand; goes on where `run` was cancelled
        self._given = 0  # of these, to the outbox
        self._source = source
        self._joining = Joining()
        self._ended: deque[tuple[int, str]] = deque()  # their end is on its way to the bus
        self._told_at = datetime.now(UTC)
        self._unheard_s = 0.0
        self.heard_at: datetime | None = None
        self._wanted = self.calls.wanted | WANTED
        self.classes: set[str] = set()  # of events that were heard: what we may read

    def open(self) -> None:
        """Take up what an earlier process knew. Raises OSError for a file that cannot be."""
        self.unsent.open()
        records = self.memory.open()
        self.calls.restore(records)
        self.heard_at = self.memory.heard_at
        for call in list(self.calls.calls.values()):
            if not call.legs:  # it has ended, and the bus is told of that first
                self.calls.forget(call)
                self._ended.append((self.unsent.put_count, call.id))

    # -- from the exchange ----------------------------------------------------------------------

    def hear(self, packet: Packet) -> None:
        """Take one event."""
        now = datetime.now(UTC)
        self.heard_at = now
        self.classes.add(packet["Privilege"].partition(",")[0])
        if packet.event not in self._wanted:  # two of three mean nothing
            return
        states = self.groups.apply(packet, moment_of(packet, now))
        for event in self.calls.apply(packet, now):
            self._tell(event)
        for state in states:
            self._put(telling.operator_message(self._source, state))
        if self.calls.changed:
            self._keep()

    def resync_calls(self, channels: list[Packet], members: list[Packet]) -> list[str]:
        """Take the list of channels, after the exchange was not heard for a while; return the
        channels of calls that began meanwhile, of which it is not known whether they are
        recorded."""
        now = datetime.now(UTC)
        for packet in members:
            if packet.event == "QueueMember":
                remember_member(self.calls.members, packet)
        before = set(self.calls.calls)
        live = [packet for packet in channels if packet.event == "CoreShowChannel"]
        events = catch_up(self.calls, live, now, self.heard_at)
        for event in events:
            self._tell(event)
        self._keep()
        self._tell_gap(events, before, now)
        new = [call for id, call in self.calls.calls.items() if id not in before]
        return [leg.name for call in new for leg in list(call.legs.values())[:1] if leg.name]

    def resync_groups(self, members: list[Packet]) -> None:
        """Take the list of members and of who waits."""
        for state in self.groups.resync(members, datetime.now(UTC)):
            self._put(telling.operator_message(self._source, state))

    def _tell_gap(self, events: list[CallEvent], before: set[str], now: datetime) -> None:
        since, self.heard_at = self.heard_at, now
        if since is None or (unheard_s := (now - since).total_seconds()) < GAP_TOLD_S:
            return
        self._unheard_s += unheard_s
        ended = sum(event.kind == "ended" for event in events)
        begun = sum(event.kind == "started" for event in events)
        LOG.warning(
            text("connector.ats_gap", since=since.isoformat(timespec="seconds"),
                 seconds=round(unheard_s), live=len(before) - ended, begun=begun, ended=ended)
        )  # fmt: skip

    def recorded(self, channel: str, file: str) -> None:
        """Note what is said of the recording of a call that began unheard."""
        for call in self.calls.calls.values():
            if any(leg.name == channel for leg in call.legs.values()):
                self.calls.recorded(call, file)
        self._keep()

    # -- to the bus -----------------------------------------------------------------------------

    def _tell(self, event: CallEvent) -> None:
        call = event.call
        joined = None
        if not call.id112:
            joined = self._card_of(call.id, call.number_from, call.number_to)
            call.id112 = joined or ""
        self._put(telling.call_message(self._source, event))
        if joined:
            self._put_joined(call.id, joined)
        if event.kind == "ended":
            self._ended.append((self.unsent.put_count, call.id))

    def _card_of(self, call_id: str, *numbers: str) -> str | None:
        now = time.monotonic()
        found = [self._joining.call(number, call_id, now) for number in numbers if number]
        return next((id112 for id112 in found if id112), None)

    def join_card(self, number: str, id112: str) -> str | None:
        """A card came with this number: tell of the call that it belongs to, and return it."""
        call_id = self._joining.card(number, id112, time.monotonic())
        if call_id is None:
            return None
        if (call := self.calls.calls.get(call_id)) is not None:
            call.id112 = id112
            self.calls.changed[call.id] = call
            self._keep()
        self._put_joined(call_id, id112)
        return call_id

    def _put_joined(self, call_id: str, id112: str) -> None:
        self._put(telling.joined_message(self._source, call_id, id112, datetime.now(UTC)))

    def _put(self, message: Message) -> None:
        self.unsent.put(message)

    def _keep(self) -> None:
        for call in self.calls.changed.values():
            self.memory.began(call)
        self.calls.changed.clear()

    def tell_groups(self, threshold_s: float) -> None:
        """Tell the figures of each group since the last time."""
        now = datetime.now(UTC)
        period_s = max(0.001, (now - self._told_at).total_seconds())
        self._told_at = now
        unheard_s, self._unheard_s = min(self._unheard_s, period_s), 0.0
        for group, there in self.groups.take().items():
            self._put(
                telling.group_message(
                    self._source, group, there, period_s, threshold_s, now, unheard_s
                )
            )

    def keep_house(self) -> None:
        """Forget calls whose end is on the router's disk; note when the exchange was heard last."""
        ended = []
        while self._ended and self._ended[0][0] <= self.unsent.done_count:
            ended.append(self._ended.popleft()[1])
        self.memory.ended(ended)
        if self.heard_at is not None and self.heard_at != self.memory.heard_at:
            self.memory.heard(self.heard_at)

    async def run(self) -> None:
        """Give the bus what waits for it, in order, until cancelled."""
        work = (self.outbox.run(), self._give())
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _give(self) -> None:
        while True:
            if not self._batch:
                self._batch, self._given = await self.unsent.get(BATCH), 0
            while self._given < len(self._batch):
                await self.outbox.put(self._batch[self._given])
                self._given += 1
            await self.outbox.drain()
            self.unsent.done(len(self._batch))
            self._batch = []

    async def finish(self, within_s: float) -> None:
        """After `run` has ended: give the bus what is left, as far as the time allows."""
        giving = asyncio.create_task(self.run())
        try:
            async with asyncio.timeout(within_s):
                await self.unsent.all_done()
        except TimeoutError:
            pass
        finally:
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)
        self.keep_house()
        self.memory.close()
        self.unsent.close()
