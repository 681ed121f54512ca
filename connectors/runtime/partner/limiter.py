"""The rate limit of a partner: a token bucket. Pure: the caller gives the clock, in seconds."""


class Limiter:
    """At most `per_s` a second on average and `burst` at once; 0 a second means no limit."""

    def __init__(self, per_s: float, burst: int = 1) -> None:
        self._per_s = per_s
        self._burst = max(1, burst)
        self._tokens = float(self._burst)
        self._at: float | None = None

    @property
    def state(self) -> tuple[float, float]:
        """What a process hands over to the next: places left, and at what time (0: never used)."""
        return self._tokens, 0.0 if self._at is None else self._at

    @state.setter
    def state(self, state: tuple[float, float]) -> None:
        self._tokens, self._at = state

    def take(self, now: float) -> float:
        """Take the next place in the line; return the seconds to wait before using it."""
        if self._per_s <= 0:
            return 0.0
        self._fill(now)
        self._tokens -= 1.0
        return 0.0 if self._tokens >= 0 else -self._tokens / self._per_s

    def admit(self, now: float) -> float:
        """Take a place if there is one now and return 0; else take none, and return the seconds
        until there is one: for whoever is refused and does not wait in a line."""
        if self._per_s <= 0:
            return 0.0
        self._fill(now)
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._per_s
        self._tokens -= 1.0
        return 0.0

    def _fill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now if self._at is None else max(now, self._at)
        self._tokens = min(float(self._burst), self._tokens + passed * self._per_s)
