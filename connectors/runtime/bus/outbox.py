"""What a connector tells the bus of its own accord, in order, however long the bus is away."""

import asyncio
from typing import Final

from connectors.runtime.log import LOG
from proto import clock
from proto.client import BusClient
from proto.errors import TEMPORARY
from proto.message import Message
from proto.wording import text

BATCH: Final = 2000
PAUSE_S: Final = 1.0


class Outbox:
    """Publishes what is put into it; `run` it beside everything else. When it is full `put` waits.

    What the bus refuses for the time being is published again; what it refuses for good is told in
    the log and dropped.
    """

    def __init__(self, bus: BusClient, length_max: int) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[Message] = asyncio.Queue(length_max)
        self._batch: list[Message] = []  # in hand; published again if `run` is cancelled meanwhile
        self._taken = 0
        self.dropped = 0  # refused for good
        self._put = 0
        self._done = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def put(self, message: Message) -> None:
        """Take a message; waits while there is no room."""
        await self._queue.put(message)
        self._put += 1

    @property
    def waiting(self) -> int:
        """How many messages wait for the router."""
        return self._queue.qsize() + len(self._batch)

    async def drain(self) -> None:
        """Wait until all that was put in so far is on the router's disk, or refused for good;
        however much more is put in meanwhile."""
        if self._done < self._put:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._put, done))
            await done

    async def run(self) -> None:
        """Publish, until cancelled. Raises BusError when the session has ended for good."""
        while True:
            if not self._batch:
                self._batch = [await self._queue.get()]
                while len(self._batch) < BATCH and not self._queue.empty():
                    self._batch.append(self._queue.get_nowait())
                self._taken = len(self._batch)
            while self._batch:
                self._batch = await self._publish(self._batch)
            self._done += self._taken
            while self._waiting and self._waiting[0][0] <= self._done:
                _, done = self._waiting.pop(0)
                if not done.done():
                    done.set_result(None)

    async def finish(self, within_s: float) -> None:
        """After `run` has ended: publish what is left, as far as the time allows."""
        running = asyncio.create_task(self.run())
        try:
            async with asyncio.timeout(within_s):
                await self.drain()
        except TimeoutError:
            pass
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _publish(self, batch: list[Message]) -> list[Message]:
        """Publish once; return what is to be published again, after a pause."""
        again: list[Message] = []
        pause_s = PAUSE_S
        for message, refused in zip(batch, await self._bus.publish_many(batch), strict=True):
            if refused is None:
                continue
            if refused.code in TEMPORARY:
                again.append(message)
                pause_s = max(pause_s, (refused.retry_after_ms or 0) / 1000)
            else:
                self.dropped += 1
                LOG.error(text("connector.outbox_refused", type=message.type, code=refused.code))
        if again:
            await clock.sleep(pause_s)
        return again
