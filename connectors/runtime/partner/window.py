"""Durations of the last hour, and how many of them were over a limit."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

SPAN_S: Final = 3600.0
KEPT_MAX: Final = 20_000


class Window:
    """Keeps durations in seconds, at most an hour and KEPT_MAX of them."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._kept: deque[tuple[float, float]] = deque(maxlen=KEPT_MAX)

    def add(self, seconds: float) -> None:
        """Count one."""
        self._kept.append((self._clock(), seconds))

    def report(self) -> dict[str, Any]:
        """Return count, how many were over the limit, and p50, p99 and max in seconds (None when
        there was nothing), as plain values."""
        since = self._clock() - SPAN_S
        while self._kept and self._kept[0][0] < since:
            self._kept.popleft()
        found = sorted(seconds for _, seconds in self._kept)
        return {
            "limit_s": self.limit_s,
            "count": len(found),
            "over": sum(seconds > self.limit_s for seconds in found),
            "p50_s": _quantile(found, 50),
            "p99_s": _quantile(found, 99),
            "max_s": _quantile(found, 100),
        }


def _quantile(found: list[float], percent: int) -> float | None:
    """Return the smallest value that `percent` of all do not exceed."""
    if not found:
        return None
    return round(found[max(0, -(-len(found) * percent // 100) - 1)], 3)
