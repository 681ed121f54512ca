"""How often lookups hit and how long they take: counters of one process."""

from collections import Counter, defaultdict
from typing import Any, Final

from connectors.runtime.partner.latency import Latency

# near: this process had it; far: memcached had it; stale: an old answer, a new one is asked for;
# joined: somebody was asking already; missed: the partner was asked; failed: it did not answer.
HITS: Final = frozenset({"near", "far", "stale"})
OUTCOMES: Final = ("near", "far", "stale", "joined", "missed", "failed")


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
        counts, latency = self._outcomes[kind], self._latency[kind]
        hits = sum(counts[outcome] for outcome in HITS)
        return {
            **{outcome: counts[outcome] for outcome in OUTCOMES},
            "hit_rate": round(hits / counts.total(), 4),
            "total_ms": round(latency.total_ms, 1),
            "p50_ms": latency.quantile_ms(0.5),
            "p99_ms": latency.quantile_ms(0.99),
        }
