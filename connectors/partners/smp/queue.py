"""The queue API: an ambulance system that nobody can call sends, receives and commits by itself.

A delivery is held for the ambulance until it is committed; how many are held is the connector's
credit. What is given out and not committed in time goes back to the router and comes again, with
the same ref. The next message of a subject comes when the one before is settled, so its order
holds however many receive at once.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from connectors.partners.smp import contract
from connectors.partners.smp.shelf import Shelf
from connectors.runtime.door.waiting import Waiting
from connectors.runtime.log import LOG
from connectors.runtime.words import RejectInWords
from proto import clock
from proto.client import Delivery, Retry
from proto.message import Message, now_ms
from proto.note import coded
from proto.wording import text

LOOK_S: Final = 0.25
RECEIVERS_MAX: Final = 100
NEWS: Final = "news"


class _Open:
    """A delivery, and who waits for its outcome."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def end(self, note: str | None = None, error: Exception | None = None) -> None:
        """Settle it."""
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(note)
        else:
            self.outcome.set_exception(error)


class Queue:
    """What is held for the ambulance system `system`. Whoever does not come for `quiet_s` seconds
    while something waits is told to the administrator, once."""

    def __init__(self, system: str, visibility_s: float, quiet_s: float) -> None:
        self._system = system
        self._visibility_s = visibility_s
        self._quiet_s = quiet_s
        self._shelf: Shelf[_Open] = Shelf()
        self._waiting = Waiting(RECEIVERS_MAX)
        self._heard_at = clock.monotonic()
        self._waits_since = self._heard_at
        self._quiet = False

    async def hold(self, delivery: Delivery) -> str | None:
        """Hold a delivery until it is committed; return the note. Raises Retry or Reject."""
        held = _Open(delivery)
        if not self._shelf.waiting:
            self._waits_since = clock.monotonic()
        self._shelf.put(delivery.key, held, delivery.message.priority)
        self._waiting.wake(NEWS)
        try:
            return await held.outcome
        finally:
            self._shelf.remove(delivery.key)

    def receive(self, most: int, owner: str = "") -> list[contract.Received]:
        """Give out at most `most` messages to the caller `owner`, who alone may commit them."""
        self._heard()
        due = clock.monotonic() + self._visibility_s
        commit_by = datetime.now(UTC) + timedelta(seconds=self._visibility_s)
        given = []
        for ref, held in self._shelf.take(most, due, owner):
            expires = held.delivery.message.expires
            if expires is not None and expires <= now_ms():
                held.end(error=Retry(coded("smp.too_late"), 0))  # the router ends it
            else:
                given.append(_received(ref, held.delivery, commit_by))
        return given

    async def wait(self, within_s: float) -> bool:
        """Wait until there may be something to receive; False when the time is over."""
        return await self._waiting.wait(NEWS, within_s)

    def commit(
        self, request: contract.CommitRequest, owner: str = ""
    ) -> list[contract.CommitResult]:
        """Settle what `owner` holds of the request's refs, and say of each whether it was."""
        self._heard()
        return [
            contract.CommitResult(ref, self._commit(ref, owner, request)) for ref in request.refs
        ]

    def _commit(self, ref: str, owner: str, request: contract.CommitRequest) -> bool:
        held = self._shelf.claim(ref, owner)
        if held is None:
            return request.outcome != "retry" and self._shelf.was_committed(ref, owner)
        if request.outcome == "retry":
            held.end(error=Retry(request.reason or coded("smp.retry"), request.after_s))
            return True
        self._shelf.note_committed(ref, owner)
        if request.outcome == "reject":
            held.end(error=RejectInWords(request.reason))
        else:
            held.end(request.note or coded("smp.committed"))
        return True

    async def run(self) -> None:
        """Take back what is not committed in time; until cancelled, then nobody waits any more."""
        try:
            while True:
                await clock.sleep(min(LOOK_S, self._visibility_s / 4))
                now = clock.monotonic()
                for held in self._shelf.overdue(now):
                    seconds = f"{self._visibility_s:g}"
                    held.end(error=Retry(coded("smp.not_committed", seconds=seconds), 0))
                self._watch(now)
        finally:
            self._waiting.end()

    def _watch(self, now: float) -> None:
        count, silent_s = self._shelf.waiting, now - max(self._heard_at, self._waits_since)
        if not self._quiet and count and silent_s > self._quiet_s:
            self._quiet = True
            seconds = round(silent_s)
            LOG.error(text("smp.queue_quiet", system=self._system, seconds=seconds, count=count))

    def _heard(self) -> None:
        now = clock.monotonic()
        if self._quiet:
            self._quiet = False
            seconds = round(now - self._heard_at)
            LOG.info(text("smp.queue_back", system=self._system, seconds=seconds))
        self._heard_at = now


def _received(ref: str, delivery: Delivery, commit_by: datetime) -> contract.Received:
    message: Message = delivery.message
    return contract.Received(
        ref=ref,
        attempt=delivery.attempt,
        commit_by=commit_by,
        type=message.type,
        source=message.source,
        subject=message.subject,
        id=message.id,
        time=_instant(message.time),
        priority=message.priority,
        expires=None if message.expires is None else _instant(message.expires),
        correlation_id=message.correlation_id,
        payload=msgspec.Raw(message.body),
    )


def _instant(ms: int) -> datetime:
    """Return a time of an envelope; the last one that a date can be, for what is beyond it."""
    return datetime.fromtimestamp(min(ms, 253_402_300_799_000) / 1000, UTC)
