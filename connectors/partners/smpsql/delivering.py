"""From the bus to the inbox: what is held at one moment goes in one INSERT, one commit."""

import asyncio
from collections.abc import Callable
from typing import Final

from connectors.partners.smpsql.database import BadData, DatabaseAway, NotTaken
from connectors.partners.smpsql.tables import Inbox
from proto.client import Delivery

ROWS_MAX: Final = 500
REFUSALS_MAX: Final = 8
BYTES_MAX: Final = 4 * 1024 * 1024

Waiting = tuple[Delivery, "asyncio.Future[None]"]


class Deliverer:
    """Gathers deliveries while an INSERT is under way, and inserts them with the next.

    `failed(answer)` and `succeeded()` are called once for each INSERT.
    """

    def __init__(
        self, inbox: Inbox, failed: Callable[[str], object], succeeded: Callable[[], None]
    ) -> None:
        self._inbox = inbox
        self._failed = failed
        self._succeeded = succeeded
        self._waiting: list[Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._refusals = 0  # by rules of the database, since it took something
        self.inserted = 0
        self.repeats = 0

    async def put(self, delivery: Delivery) -> None:
        """Return when the delivery is committed, now or before. Raises DatabaseAway, NotTaken or
        BadData."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await done

    async def close(self) -> None:
        """Insert nothing more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self) -> None:
        await asyncio.sleep(0)  # the others that came in this turn of the loop
        while self._waiting:
            await self._insert(self._next_group())

    def _next_group(self) -> list[Waiting]:
        count, size = 0, 0
        for delivery, _ in self._waiting[:ROWS_MAX]:
            size += len(delivery.message.body)
            if count and size > BYTES_MAX:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _insert(self, group: list[Waiting]) -> None:
        try:
            inserted = await self._inbox.put([delivery for delivery, _ in group])
        except DatabaseAway as away:
            self._failed(away.answer)
            _end(group, away)
        except (BadData, NotTaken) as bad:  # none was inserted: find the one that cannot be
            if len(group) == 1:
                _end(group, self._verdict(bad))
                return
            half = len(group) // 2
            await self._insert(group[:half])
            await self._insert(group[half:])
        except Exception as mistake:  # whoever waits has to hear of it
            _end(group, mistake)
        else:
            self._refusals = 0
            self._succeeded()
            self.inserted += inserted
            self.repeats += len(group) - inserted
            _end(group)

    def _verdict(self, bad: BadData | NotTaken) -> Exception:
        """A database that takes nothing at all has failed, whatever it says of each row."""
        if isinstance(bad, BadData):
            return bad
        self._refusals += 1
        if self._refusals < REFUSALS_MAX:
            return bad
        answer = f"SQLSTATE {bad}"
        self._failed(answer)
        return DatabaseAway(answer)


def _end(group: list[Waiting], error: Exception | None = None) -> None:
    for _, done in group:
        if done.done():  # whoever waited was cancelled
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
