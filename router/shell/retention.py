"""Dead letters come to an end: they are announced first, then dropped as an operator would drop
them.

From `dead_told_days` before its end a dead letter is announced once a day, emergencies in an error
of their own. None ends that was not announced for so long, even if the router was down meanwhile:
when it was announced is kept in the journal. Pruning of the history then removes and overwrites
what was dropped.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from proto.message import UNREADABLE, Priority
from proto.nesting import decode_json
from proto.note import coded
from proto.retention import DAY_MS, Retention
from proto.wording import text
from router.shell.pruning import PART, REST_S, REST_SHARE, STEADY_MS, Course
from router.store.contract import Letter, Which
from router.store.head import head_of

if TYPE_CHECKING:
    from router.core.clock import Now
    from router.shell.writer import Writer

LOOK_MS: Final = 3_600_000
DROPPED_AT_ONCE: Final = 200
TOLD: Final = "dead_told"  # in the journal's own notes
OVER: Final = coded("bus.retention_over")
log = logging.getLogger("smpbus.router")


class Telling(msgspec.Struct, frozen=True, array_like=True):
    """At `at` all dead letters were named that had died before `before`, emergencies before
    `emergencies_before` (ms UTC)."""

    at: int
    before: int
    emergencies_before: int


class _Found:
    """What one look has found."""

    def __init__(self) -> None:
        self.over: list[int] = []  # deliveries whose time is over
        self.ending: Counter[str] = Counter()  # destination -> how many are to end soon
        self.emergencies: Counter[str] = Counter()


class Ending:
    """Of the dead letters of one router, by settings that a reload may change."""

    def __init__(
        self,
        writer: "Writer",
        settings: Callable[[], Retention],
        drop: Callable[[list[int], str], Awaitable[int]],
    ) -> None:
        """`drop(deliveries, reason)` drops those of them that are still dead, and returns how many
        it did."""
        self._writer = writer
        self._settings = settings
        self._drop = drop
        self._course = Course()
        self._task: asyncio.Task[None] | None = None
        self._looked_at: int | None = None

    def beat(self, now: "Now") -> None:
        """Look when it is time; call it once a second."""
        steady_ms = self._course.steady_ms(now)
        told_ms = _ms(self._settings().dead_told_days)
        if steady_ms < min(STEADY_MS, told_ms // PART):
            return
        if self._task is not None and not self._task.done():
            return
        pause_ms = min(LOOK_MS, told_ms // PART)
        if self._looked_at is not None and now.mono_ms - self._looked_at < pause_ms:
            return
        self._looked_at = now.mono_ms
        self._task = asyncio.create_task(self._try(now.wall_ms))

    def close(self) -> None:
        """Begin nothing further."""
        if self._task is not None:
            self._task.cancel()

    async def _try(self, wall_ms: int) -> None:
        try:
            await self.look(wall_ms)
        except Exception as error:  # it may wait; a store in doubt ends the next write
            log.warning(text("router.prune_failed", reason=type(error).__name__))

    async def look(self, wall_ms: int) -> None:
        """Drop what is over and was told of long enough; tell of what is to end."""
        settings = self._settings()
        told = await self._told()
        found = await self._find(settings, told, wall_ms)
        await self._end(found.over)
        await self._tell(settings, told, found, wall_ms)

    async def _told(self) -> list[Telling]:
        noted = await self._writer.query(lambda store: store.noted(TOLD))
        try:
            return decode_json(noted.encode(), list[Telling])
        except UNREADABLE:
            return []

    async def _find(self, settings: Retention, told: list[Telling], wall_ms: int) -> _Found:
        known_ms = wall_ms - _ms(settings.dead_told_days)
        ripe = [one for one in told if one.at <= known_ms]
        named = max((one.before for one in ripe), default=0)
        emergencies_named = max((one.emergencies_before for one in ripe), default=0)
        limits = _limits(settings, wall_ms)
        found = _Found()
        began = time.monotonic()
        async for step in self._writer.search(lambda store: store.dead_steps(Which())):
            for letter in step:
                urgent = _is_emergency(letter)
                over, ending = limits[urgent]
                if letter.ended_at < min(over, emergencies_named if urgent else named):
                    found.over.append(letter.delivery)
                elif letter.ended_at < ending:
                    (found.emergencies if urgent else found.ending)[letter.destination] += 1
            await asyncio.sleep(max(REST_S, REST_SHARE * (time.monotonic() - began)))
            began = time.monotonic()
        return found

    async def _end(self, over: list[int]) -> None:
        ended = 0
        for start in range(0, len(over), DROPPED_AT_ONCE):
            ended += await self._drop(over[start : start + DROPPED_AT_ONCE], OVER)
            await asyncio.sleep(REST_S)
        if ended:
            log.warning(text("router.dead_ended", count=ended))

    async def _tell(
        self, settings: Retention, told: list[Telling], found: _Found, wall_ms: int
    ) -> None:
        period_ms = _ms(settings.dead_told_days)
        day_ms = min(DAY_MS, period_ms // 2)
        # A clock that was ahead has left tellings in the future: they tell nobody anything.
        past = [one for one in told if one.at <= wall_ms]
        if not (found.ending or found.emergencies):
            return
        if past and wall_ms - past[-1].at < day_ms:
            return
        days = f"{settings.dead_told_days:g}"
        if found.emergencies:
            log.error(
                text("router.dead_emergencies_ending", days=days, **_fields(found.emergencies))
            )
        if found.ending:
            log.warning(text("router.dead_ending", days=days, **_fields(found.ending)))
        limits = _limits(settings, wall_ms)
        now = Telling(wall_ms, limits[False][1], limits[True][1])
        # The newest that is ripe stands for all before it.
        kept = [one for one in past if one.at > wall_ms - period_ms - 2 * day_ms]
        noted = msgspec.json.encode([*kept, now]).decode()
        await self._writer.query(lambda store: store.note(TOLD, noted))


def _limits(settings: Retention, wall_ms: int) -> dict[bool, tuple[int, int]]:
    """Return, of emergencies (True) and others: what died before the first is over, what died
    before the second is to end soon."""
    told_ms = _ms(settings.dead_told_days)
    kept = {False: _ms(settings.dead_days), True: _ms(settings.dead_emergency_days)}
    return {urgent: (wall_ms - ms, wall_ms - ms + min(ms, told_ms)) for urgent, ms in kept.items()}


def _is_emergency(letter: Letter) -> bool:
    """One that cannot be read is kept as long as the most urgent."""
    try:
        return head_of(letter.head, letter.size).message.priority == Priority.EMERGENCY
    except UNREADABLE:
        return True


def _fields(counts: Counter[str]) -> dict[str, object]:
    where = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return {"count": counts.total(), "where": where}


def _ms(days: float) -> int:
    return round(days * DAY_MS)
