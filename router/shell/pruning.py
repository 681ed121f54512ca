"""Pruning: history goes as fast as it comes, in steps that delay nobody.

A step is a transaction of some milliseconds; between two of them the store is left alone for longer
than the step took. What was open, dead or just over when the pruning passed it is looked at again
every hour. A clock that has just been set is not believed: it could make all history old at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proto.wording import text
from router.settings import StoreSettings

if TYPE_CHECKING:
    from router.core.clock import Now
    from router.shell.writer import Writer

STEP: Final = 200  # messages
REST_SHARE: Final = 4  # times what a step took
REST_S: Final = 0.01
EVERY_MS: Final = 1_000
AGAIN_MS: Final = 3_600_000
JUMP_MS: Final = 1_000  # of the wall clock between two beats
STEADY_MS: Final = 300_000  # without one before the clock is believed
PART: Final = 12  # of what is kept: for so long at most, if that is less, either is waited for
HOUR_MS: Final = 3_600_000
log = logging.getLogger("smpbus.router")


class Course:
    """For how long the wall clock has gone on without a jump."""

    def __init__(self) -> None:
        self._difference_ms: int | None = None  # between the clocks
        self._steady_since = 0

    def steady_ms(self, now: "Now") -> int:
        """Return it; to be asked once a second."""
        difference = now.wall_ms - now.mono_ms
        if self._difference_ms is None or abs(difference - self._difference_ms) > JUMP_MS:
            self._steady_since = now.mono_ms
        self._difference_ms = difference
        return now.mono_ms - self._steady_since


class Pruning:
    """Of one store, by settings that a reload may change."""

    def __init__(self, writer: "Writer", settings: Callable[[], StoreSettings]) -> None:
        self._writer = writer
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._course = Course()
        self._pruned_at = 0
        self._looked_again_at: int | None = None

    def beat(self, now: "Now") -> None:
        """Begin when there may be something to prune; call it once a second."""
        steady_ms = self._course.steady_ms(now)
        if self._looked_again_at is None:  # a start looks at everything anyway
            self._looked_again_at = now.mono_ms
        keep_ms = self._keep_ms()
        if (
            steady_ms < min(STEADY_MS, keep_ms // PART)
            or now.mono_ms - self._pruned_at < EVERY_MS
            or (self._task is not None and not self._task.done())
        ):
            return
        again = now.mono_ms - self._looked_again_at >= min(AGAIN_MS, keep_ms // PART)
        if again:
            self._looked_again_at = now.mono_ms
        self._pruned_at = now.mono_ms
        self._task = asyncio.create_task(self._prune(now.wall_ms - keep_ms, again))

    def close(self) -> None:
        """Begin no further step."""
        if self._task is not None:
            self._task.cancel()

    def _keep_ms(self) -> int:
        settings = self._settings()
        return int(max(settings.history_hours, settings.dedup_hours) * HOUR_MS)

    async def _prune(self, before_ms: int, again: bool) -> None:
        for passed in (False, True) if again else (False,):
            while await self._step(before_ms, passed):
                pass

    async def _step(self, before_ms: int, passed: bool) -> int:
        began = time.monotonic()
        try:
            looked_at = await self._writer.query(lambda s: s.prune(before_ms, STEP, passed))
        except Exception as error:  # history may wait; a store in doubt ends the next write
            log.warning(text("router.prune_failed", reason=type(error).__name__))
            return 0
        await asyncio.sleep(max(REST_S, REST_SHARE * (time.monotonic() - began)))
        return looked_at
