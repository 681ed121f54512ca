"""What came of the requests to one partner: counters of one process, and the time it takes."""

from collections import Counter

from connectors.runtime.partner.latency import Latency, RecentLatency


class Tally:
    """`requests` went out, `failures` says by kind what came of those that failed."""

    def __init__(self) -> None:
        self.requests = 0
        self.failures: Counter[str] = Counter()
        self.recent = RecentLatency()
        self.ever = Latency()

    def answered(self, ms: float, now: float) -> None:
        """Count an answer, whatever it says, that came after `ms`; `now` is monotonic seconds."""
        self.recent.add(ms, now)
        self.ever.add(ms)
