"""A clock that a test sets forward, so that it need not sleep: see proto/clock.py."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from proto import clock

TURNS: Final = 8  # of the loop: a timer, an event, the task that waits for it, and what it calls


class LeapingClock(clock.Clock):
    """Goes as the system's, and leaps when it is told to: who waits for that time goes on."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._timers: set[_Timer] = set()

    def monotonic(self) -> float:
        """See proto.clock."""
        return super().monotonic() + self._ahead_s

    async def sleep(self, seconds: float) -> None:
        """See proto.clock."""
        over = asyncio.Event()
        timer = self.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> clock.Timer:
        """See proto.clock."""
        timer = _Timer(self, seconds, callback)
        self._timers.add(timer)
        timer.wind()
        return timer

    def leap(self, seconds: float) -> None:
        """Let so many seconds be over. What was waited for happens in the next turns of the loop,
        in its order."""
        self._ahead_s += seconds
        for timer in sorted(self._timers, key=lambda one: one.due):
            timer.wind()

    async def live_through(self, seconds: float) -> None:
        """Leap, and let whoever has waited for that have his turn."""
        self.leap(seconds)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def sleeps(self, seconds: float) -> bool:
        """Whether somebody waits who has begun to wait for so many seconds."""
        return any(one.seconds == seconds for one in self._timers)

    def forget(self, timer: "_Timer") -> None:
        """It was cancelled, or has called."""
        self._timers.discard(timer)


class _Timer:
    def __init__(self, of: LeapingClock, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.due = of.monotonic() + seconds
        self._of = of
        self._callback = callback
        self._handle: asyncio.TimerHandle | asyncio.Handle | None = None

    def wind(self) -> None:
        """Wait by the real clock for what is left."""
        if self._handle is not None:
            self._handle.cancel()
        loop, left_s = asyncio.get_running_loop(), self.due - self._of.monotonic()
        call = loop.call_later(left_s, self._call) if left_s > 0 else loop.call_soon(self._call)
        self._handle = call

    def cancel(self) -> None:
        """See proto.clock."""
        if self._handle is not None:
            self._handle.cancel()
        self._of.forget(self)

    def _call(self) -> None:
        self._of.forget(self)
        self._callback()


@contextlib.contextmanager
def leaping() -> Iterator[LeapingClock]:
    """Put a clock that leaps in force, and return it."""
    made = LeapingClock()
    with clock.using(made):
        yield made
