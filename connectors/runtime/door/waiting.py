"""Requests that wait for news (long polls): woken by name, by the end of their time, or all at once
when the process ends."""

import asyncio
from collections import defaultdict


class Waiting:
    """At most `waiting_max` wait at a time; whoever comes beyond that does not wait at all."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self.count = 0  # that wait now
        self._ended = False

    async def wait(self, name: str, within_s: float) -> bool:
        """Return True when there may be news of `name`, False when nobody woke us in time."""
        if self._ended or within_s <= 0 or self.count >= self._waiting_max:
            return False
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[name].add(woken)
        self.count += 1
        try:
            async with asyncio.timeout(within_s):
                await woken
        except TimeoutError:
            return False
        finally:
            self.count -= 1
            self._waiting[name].discard(woken)
            if not self._waiting[name]:
                del self._waiting[name]
        return not self._ended

    def wake(self, name: str) -> None:
        """There is news of `name`."""
        for woken in self._waiting.get(name, ()):
            if not woken.done():
                woken.set_result(None)

    def end(self) -> None:
        """Nobody waits any more."""
        self._ended = True
        for name in list(self._waiting):
            self.wake(name)
