"""The circuit breaker: stop asking a partner that is down, ask one question at a time until it
answers. Pure: the clock is given by the caller, in seconds, and may start anywhere."""

from typing import Literal

import msgspec

State = Literal["closed", "open", "half_open"]


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After `failures_max` failures in a row rest `open_s` seconds, twice as long each time the
    probe fails, at most `open_max_s`."""

    failures_max: int = msgspec.field(default=5)
    open_s: float = 2.0
    open_max_s: float = 60.0


class Breaker:
    """One partner's breaker: closed (all may go), open (none), half-open (one probe).

    Whoever asks the partner lets himself be admitted; `wait_s` only looks.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.failures = 0
        self._open_s = 0.0
        self._open_until: float | None = None
        self._probe_until = 0.0

    @property
    def closed(self) -> bool:
        """Whether nothing stands in the way."""
        return self._open_until is None

    def wait_s(self, now: float) -> float:
        """Return the seconds until a probe may go; 0 when closed, or half-open without one."""
        if self._open_until is None:
            return 0.0
        return max(0.0, self._open_until - now, self._probe_until - now)

    def admit(self, now: float, within_s: float) -> float:
        """Return 0 when a request may go now, else the seconds until one may be tried. When the
        rest is over it goes as the probe: until it succeeds, fails or is released no other may, but
        for `within_s` seconds at most."""
        wait_s = self.wait_s(now)
        if self._open_until is not None and not wait_s:
            self._probe_until = now + within_s
        return wait_s

    def released(self) -> None:
        """A probe was given up before anything was known."""
        self._probe_until = 0.0

    def state(self, now: float) -> State:
        """Return the state in a word."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def succeeded(self) -> None:
        """The partner answered: close."""
        self.failures = 0
        self._probe_until = 0.0
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
            self._probe_until = 0.0
            self._open_s = min(self._open_s * 2, self.settings.open_max_s)
            self._open_until = now + self._open_s
