"""Elapsed time, as the client and the connectors measure it and wait for it.

All of them take it from one clock: the system's, unless another one is in force. A test that would
have to sleep puts in one that it can move forward. The time of day (`message.now_ms`) does not go
by it, and neither does a limit on the answer of another process or thread, which takes the time it
takes.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Final, Protocol


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Do not call any more."""


class Clock:
    """The clock of the system."""

    def monotonic(self) -> float:
        """See the function."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See the function."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """See the function."""
        return asyncio.get_running_loop().call_later(seconds, callback)


SYSTEM: Final = Clock()
_in_force: ContextVar[Clock] = ContextVar("clock", default=SYSTEM)


@contextlib.contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Put a clock in force for what is done meanwhile, and for every task that is begun by it."""
    before = _in_force.set(clock)
    try:
        yield
    finally:
        _in_force.reset(before)


def in_force() -> Clock:
    """Return the clock itself: who asks it for every frame keeps it."""
    return _in_force.get()


def monotonic() -> float:
    """Return seconds since some moment; they only grow."""
    return _in_force.get().monotonic()


async def sleep(seconds: float) -> None:
    """Wait so many seconds."""
    await _in_force.get().sleep(seconds)


def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
    """Call in so many seconds, on the loop that runs."""
    return _in_force.get().call_later(seconds, callback)
