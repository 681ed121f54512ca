"""How often lookups hit and how long they take: counters of one process."""

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Any, Final

BOUNDS_MS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
# near: this process had it; far: memcached had it; stale: an old answer, a new one is asked for;
# joined: somebody was asking already; missed: the partner was asked; failed: it did not answer.
HITS: Final = frozenset({"near", "far", "stale"})
OUTCOMES: Final = ("near", "far", "stale", "joined", "missed", "failed")


class Latency:
    """A histogram of milliseconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_MS) + 1)

    def add(self, ms: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS_MS, ms)] += 1

    def quantile_ms(self, share: float) -> float | None:
        """Return a bound that `share` of all stayed under; None when it is beyond the last one or
        nothing was counted."""
        wanted = share * sum(self._counts)
        seen = 0
        for bound, count in zip(BOUNDS_MS, self._counts, strict=False):
            seen += count
            if seen and seen >= wanted:
                return float(bound)
        return None


class Figures:
    """Counts outcomes and times by kind."""

    def __init__(self) -> None:
        self._outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._latency: defaultdict[str, Latency] = defaultdict(Latency)

    def count(self, kind: str, outcome: str, ms: float) -> None:
        """Count one lookup of `kind`: how it ended, and after how many milliseconds."""
        self._outcomes[kind][outcome] += 1
        self._latency[kind].add(ms)

    def report(self) -> dict[str, dict[str, Any]]:
        """Return all figures by kind, as plain values."""
        return {kind: self._row(kind) for kind in sorted(self._outcomes)}

    def _row(self, kind: str) -> dict[str, Any]:
        counts = self._outcomes[kind]
        hits = sum(counts[outcome] for outcome in HITS)
        return {
            **{outcome: counts[outcome] for outcome in OUTCOMES},
            "hit_rate": round(hits / counts.total(), 4),
            "p50_ms": self._latency[kind].quantile_ms(0.5),
            "p99_ms": self._latency[kind].quantile_ms(0.99),
        }
