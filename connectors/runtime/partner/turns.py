"""Who may ask a partner next: so many at once, so many a second, and the urgent first.

Questions come before everything, since somebody waits for the answer; then what the bus brings, by
its priority. An emergency is passed over by one question at most, whatever else waits by
`PASSED_OVER_MAX` others: nothing starves.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Final

from connectors.runtime.partner.limiter import Limiter
from proto import clock

QUESTION, EMERGENCY, BULK = 0, 1, 4
RANKS: Final = 5
PASSED_OVER_MAX: Final = 64
# How urgent is what this task is doing: QUESTION, or one more than the priority of its message.
RANK: Final[ContextVar[int]] = ContextVar("rank", default=QUESTION)


class Turns:
    """The lines before one partner: at most `at_once` requests under way, within `limiter`."""

    def __init__(self, at_once: int, limiter: Limiter) -> None:
        self._free = at_once
        self._limiter = limiter
        self._lines: tuple[deque[asyncio.Future[None]], ...] = tuple(deque() for _ in range(RANKS))
        self._passed_over = [0] * RANKS
        self._timer: clock.Timer | None = None

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn of this task (by its RANK), and keep the place meanwhile."""
        await self._take(RANK.get())
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, rank: int) -> None:
        if not any(self._lines) and self._free and not self._limiter.admit(clock.monotonic()):
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines[rank].append(mine)
        self._serve()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._lines[rank].remove(mine)
            else:
                self._give_back()
            raise

    def _give_back(self) -> None:
        self._free += 1
        self._serve()

    def _serve(self) -> None:
        """Let go whoever may, and come back when there is a place again."""
        while self._free and any(self._lines):
            wait_s = self._limiter.admit(clock.monotonic())
            if wait_s:
                if self._timer is None:
                    self._timer = clock.call_later(wait_s, self._again)
                return
            self._free -= 1
            self._next().set_result(None)

    def _again(self) -> None:
        self._timer = None
        self._serve()

    def _next(self) -> "asyncio.Future[None]":
        waiting = [rank for rank in range(RANKS) if self._lines[rank]]
        over = (rank for rank in waiting if self._passed_over[rank] >= _passed_over_max(rank))
        chosen = next(over, waiting[0])
        self._passed_over[chosen] = 0
        for rank in waiting:
            self._passed_over[rank] += rank > chosen
        return self._lines[chosen].popleft()


def _passed_over_max(rank: int) -> int:
    return 1 if rank == EMERGENCY else PASSED_OVER_MAX
