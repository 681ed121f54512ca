"""What time it surely is: a wall clock may be wrong, step, and be set right again.

The monotonic clock never steps, but knows no date. So what happened on the wall clock is held
against it: a wall clock that goes along with it is believed, one that parts from it by more than
`STEP_MS` is not, until it comes back or has kept its new course for `TRUST_MS`. A start has the
newest time in the journal to go by: a clock that is behind it, or more than `DOWNTIME_MS` ahead,
has to keep its course first.

Meanwhile only what is past by both counts is past: the wall clock, and the last one believed going
on. So a clock that was wrong for seconds ends nothing and wakes nothing.
"""

from typing import Final

import msgspec

STEP_MS: Final = 1_000
TRUST_MS: Final = 60_000
DOWNTIME_MS: Final = 24 * 3600 * 1000


class Now(msgspec.Struct, frozen=True, gc=False):  # its fields are read for every message
    """The time: `wall_ms` since 1970 UTC for what is stored, `mono_ms` for what is waited for."""

    wall_ms: int
    mono_ms: int


class Clock:
    """The wall clock, as far as it is believed. Every time that is given to it is milliseconds."""

    def __init__(self) -> None:
        self._believed: int | None = None  # wall - mono of the last clock that was
        self._ahead_max = 0  # by so much it may be ahead of that without doubt
        self._offset = 0  # wall - mono when it was looked at last
        self._since = 0  # monotonic: so long it has kept its course
        self._armed = 0  # what `sure_ms` was ahead of the monotonic clock when timers were set

    def begin(self, newest_ms: int, now: Now) -> None:
        """A start finds `newest_ms` (UTC) as the newest time in the journal; 0 is none."""
        self._offset, self._since = now.wall_ms - now.mono_ms, now.mono_ms
        self._believed = (newest_ms or now.wall_ms) - now.mono_ms
        self._ahead_max = DOWNTIME_MS
        self.look(now)

    def sure_ms(self, now: Now) -> int:
        """Return the latest time (ms UTC) that has surely come."""
        believed = self._believed
        if believed is None or self._is_believed(now):
            return now.wall_ms
        return min(now.wall_ms, believed + now.mono_ms)

    def doubt_ends_ms(self, now: Now) -> int | None:
        """Return when (monotonic) the clock will be believed if it keeps its course, None when it
        is believed."""
        if self._believed is None or self._is_believed(now):
            return None
        return self._since + TRUST_MS

    def look(self, now: Now) -> bool:
        """Compare the clocks; to be called every second or so. Returns whether timers that were set
        by `sure_ms` are to be set anew."""
        offset = now.wall_ms - now.mono_ms
        if self._believed is None:
            self.begin(0, now)
        elif self._is_believed(now):
            self._believed, self._ahead_max = offset, 0
        if abs(offset - self._offset) > STEP_MS:
            self._since = now.mono_ms
        self._offset = offset
        armed = self.sure_ms(now) - now.mono_ms
        moved = abs(armed - self._armed) > STEP_MS
        if moved:
            self._armed = armed
        return moved

    def _is_believed(self, now: Now) -> bool:
        offset = now.wall_ms - now.mono_ms
        ahead = offset - (self._believed or 0)
        if -STEP_MS <= ahead <= self._ahead_max + STEP_MS:
            return True
        kept = abs(offset - self._offset) <= STEP_MS
        return kept and now.mono_ms - self._since >= TRUST_MS
