"""The journal's disk: how much room there is, and what is done once a second to keep it.

The router takes messages as far as there is room for them; history is pruned and dead letters end
by their settings; the store catches up with what it puts off. A journal that has lost its place is
no journal: then the engine fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from router.core.clock import Now
from router.shell.engine import Engine
from router.shell.pruning import Pruning
from router.shell.retention import Ending
from router.shell.room import Room
from router.store.contract import Store

TIDY_LAG_MAX: Final = 200_000  # rows; behind that the store is not left to itself


class Disk:
    """Looks after the journal of one engine."""

    def __init__(
        self, engine: Engine, room: Room, drop: Callable[[list[int], str], Awaitable[int]]
    ) -> None:
        """`drop(deliveries, reason)` ends dead letters; see `Ending`."""
        self.room = room
        self.store_bytes = 0
        self._engine = engine
        self._core = core = engine.core
        self._writer = engine.writer
        self._pruning = Pruning(engine.writer, lambda: core.settings.store)
        self._ending = Ending(engine.writer, lambda: core.settings.retention, drop)
        self._looking: asyncio.Future[tuple[int, int, bool]] | None = None
        self._tidying = False

    async def begin(self) -> None:
        """Measure the journal before anything is taken."""
        self.store_bytes = await self._writer.query(lambda store: store.size_bytes())

    def beat(self, at: Now) -> None:
        """Call it once a second."""
        self.judge()
        self._look()
        self._pruning.beat(at)
        self._ending.beat(at)
        self._tidy()

    def close(self) -> None:
        """Begin nothing further."""
        self._pruning.close()
        self._ending.close()

    def judge(self) -> None:
        """Refuse new messages while there is little room, emergencies last."""
        core, room = self._core, self.room
        room_bytes = room.judge(core.unsynced_bytes())
        core.allow_room(room_bytes, room.urgent_bytes, is_full=room.is_full)

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._writer.query(_measure)
            self._looking.add_done_callback(self._looked)

    def _looked(self, answer: "asyncio.Future[tuple[int, int, bool]]") -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        self.store_bytes, self.room.inside_bytes, is_in_place = answer.result()
        if not is_in_place:
            self._engine.fail()

    def _tidy(self) -> None:
        """Let the store catch up with what it puts off, in steps that delay nobody."""
        if not self._tidying:
            self._tidying = True
            self._writer.query(lambda store: store.tidy()).add_done_callback(self._tidied)

    def _tidied(self, left: "asyncio.Future[int]") -> None:
        self._tidying = False
        if not left.cancelled() and left.exception() is None:
            behind = left.result()
            if behind > TIDY_LAG_MAX or (behind and not self._writer.depth):
                self._tidy()


def _measure(store: Store) -> tuple[int, int, bool]:
    return store.size_bytes(), store.empty_bytes(), store.is_in_place()
