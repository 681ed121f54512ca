"""The circuit breaker: stop asking a partner that is down, ask one question at a time until it
answers. Pure: the clock is given by the caller, in seconds, and may start anywhere."""

import msgspec


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After `failures_max` failures in a row rest `open_s` seconds, twice as long each time the
    probe fails, at most `open_max_s`."""

    failures_max: int = msgspec.field(default=5)
    open_s: float = 2.0
    open_max_s: float = 60.0


class Breaker:
    """One partner's breaker: closed (all may go), open (none), half-open (one probe)."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.failures = 0
        self._open_s = 0.0
        self._open_until: float | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing stands in the way."""
        return self._open_until is None

    def wait_s(self, now: float) -> float:
        """Return the seconds until a probe may go; 0 when closed or half-open."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def succeeded(self) -> None:
        """The partner answered: close."""
        self.failures = 0
        self._open_s = 0.0
        self._open_until = None

    def failed(self, now: float) -> None:
        """The partner did not answer. Answers of requests sent before opening change nothing."""
        self.failures += 1
        if self._open_until is None:
            if self.failures >= self.settings.failures_max:
                self._open_s = self.settings.open_s
                self._open_until = now + self._open_s
        elif now >= self._open_until:
            self._open_s = min(self._open_s * 2, self.settings.open_max_s)
            self._open_until = now + self._open_s
