"""The circuit breaker: stop asking a partner that is down, ask one question at a time until it
answers. Pure: the clock is given by the caller, in seconds, and may start anywhere.

A silence speaks of the partner. An answer that is not as it should be may speak of the request: it
counts only beside those of other requests with no success between, once each. A request that failed
again and again while others succeeded counts no more.
"""

from collections import OrderedDict
from typing import Annotated, Final, Literal

import msgspec

State = Literal["closed", "open", "half_open"]
Rest = Annotated[float, msgspec.Meta(gt=0, le=3600)]
SUSPECTS_MAX: Final = 1024
# In so many spells between successes a request may fail and still speak of the partner.
SPELLS_MAX: Final = 2


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """After `failures_max` failures in a row rest `open_s` seconds, then try so many requests, one
    after another; without an answer to any rest twice as long, at most `open_max_s`."""

    failures_max: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 5
    open_s: Rest = 2.0
    open_max_s: Rest = 60.0


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
        self._probes = 0  # different ones that may fail before the next rest
        self._spell = 0  # the time between two successes
        self._suspects: OrderedDict[str, tuple[int, int]] = OrderedDict()

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

    def is_suspect(self, key: str) -> bool:
        """Whether the request of this key failed before: as a probe any other says more."""
        return key in self._suspects

    def succeeded(self, key: str = "") -> None:
        """The partner answered the request of `key` well: close."""
        self.failures = 0
        self._probe_until = 0.0
        self._open_s = 0.0
        self._open_until = None
        self._spell += 1
        self._suspects.pop(key, None)

    def failed(self, now: float, key: str = "", *, answered: bool = False) -> bool:
        """The partner did not answer the request of `key` ("": nobody was there for any request),
        or, if it `answered`, not as it should; return whether that may speak of the partner.
        Answers of requests sent before opening change nothing."""
        fresh, known = self._note(key) if key else (False, False)
        speaks = not known and (fresh or not answered)
        if self._open_until is None:
            self.failures += speaks
            if self.failures >= self.settings.failures_max:
                self._rest(now, self.settings.open_s)
            return speaks
        self.failures += 1
        if now < self._open_until:
            return speaks
        self._probe_until = 0.0
        self._probes -= 1
        if self._probes > 0 and fresh:
            return speaks  # it may be this request: let another one find out
        longer_s = min(self._open_s * 2, self.settings.open_max_s)
        self._rest(now, self.settings.open_s if answered else longer_s)
        return speaks

    def _rest(self, now: float, seconds: float) -> None:
        self._open_s = seconds
        self._open_until = now + seconds
        self._probes = self.settings.failures_max

    def _note(self, key: str) -> tuple[bool, bool]:
        """Remember that a request failed; return whether it is the first time in this spell, and
        whether it is known to fail while others succeed."""
        spell, spells = self._suspects.pop(key, (-1, 0))
        fresh = spell != self._spell
        spells += fresh
        self._suspects[key] = (self._spell, spells)
        if len(self._suspects) > SUSPECTS_MAX:
            self._suspects.popitem(last=False)
        return fresh, spells > SPELLS_MAX
