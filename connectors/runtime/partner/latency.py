"""How long something takes, in a few hundred numbers whatever the load. Pure: the clock is given
by the caller, in seconds, and may start anywhere."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

BOUNDS_MS: Final = tuple(
    round(step * 10.0**power, 3) for power in range(-2, 5) for step in (1, 1.5, 2, 3, 5, 7)
)
SLICES: Final = 6
SLICE_S: Final = 10.0


class Latency:
    """A histogram of milliseconds, from 10 microseconds to 70 seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self.total_ms = 0.0

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self._counts)

    def add(self, ms: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS_MS, ms)] += 1
        self.total_ms += ms

    def quantile_ms(self, share: float) -> float | None:
        """Return a bound that `share` of all stayed under; None when it is beyond the last one or
        nothing was counted."""
        return _quantile(self._counts, share)

    @staticmethod
    def of_all(parts: "Iterable[Latency]", share: float) -> float | None:
        """Return the quantile of several histograms together."""
        counts = [sum(column) for column in zip(*(part._counts for part in parts), strict=True)]
        return _quantile(counts, share)


class RecentLatency:
    """The histogram of the last minute: of the slice at hand and of the five before it."""

    def __init__(self) -> None:
        self._slices = [Latency() for _ in range(SLICES)]
        self._at: int | None = None  # number of the slice at hand

    def add(self, ms: float, now: float) -> None:
        """Count one."""
        self._advance(now)
        self._slices[-1].add(ms)

    def quantile_ms(self, share: float, now: float) -> float | None:
        """Return a bound as `Latency` does, None when nothing was counted for a minute."""
        self._advance(now)
        return Latency.of_all(self._slices, share)

    def _advance(self, now: float) -> None:
        at = int(now // SLICE_S)
        passed = SLICES if self._at is None else min(SLICES, max(0, at - self._at))
        if passed:
            self._slices = [*self._slices[passed:], *(Latency() for _ in range(passed))]
            self._at = at


def _quantile(counts: list[int], share: float) -> float | None:
    wanted = share * sum(counts)
    seen = 0
    for bound, count in zip(BOUNDS_MS, counts, strict=False):
        seen += count
        if seen and seen >= wanted:
            return bound
    return None
