"""When a wall clock is believed: the model's own account of `router.core.clock`."""

from router.core.clock import Now

STEP_MS = 1_000
TRUST_MS = 2_000  # in the simulated world; the router's own limits are too long for a short life
DOWNTIME_MS = 60_000


class Belief:
    """What one life of the router may hold for the time of the day."""

    def __init__(self, newest_ms: int, now: Now) -> None:
        self._good = Now(newest_ms or now.wall_ms, now.mono_ms)
        self._leeway = DOWNTIME_MS
        self._course = [now, now]  # the first and the latest look since the last step
        self.look(now)

    def look(self, now: Now) -> None:
        """The router compares its clocks."""
        if self._holds(now):
            self._good, self._leeway = now, 0
        self._course = [self._course[0], now] if self._keeps(now) else [now, now]

    def sure(self, now: Now) -> int:
        """Return what has surely come: by the clock, and by a believed one going on."""
        return now.wall_ms if self._holds(now) else min(now.wall_ms, self._expected(now))

    def _expected(self, now: Now) -> int:
        return self._good.wall_ms + now.mono_ms - self._good.mono_ms

    def _keeps(self, now: Now) -> bool:
        latest = self._course[-1]
        passed = now.mono_ms - latest.mono_ms
        return abs(now.wall_ms - latest.wall_ms - passed) <= STEP_MS

    def _holds(self, now: Now) -> bool:
        expected = self._expected(now)
        if expected - STEP_MS <= now.wall_ms <= expected + self._leeway + STEP_MS:
            return True
        return self._keeps(now) and now.mono_ms - self._course[0].mono_ms >= TRUST_MS
