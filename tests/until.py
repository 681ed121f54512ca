"""Waiting for what is to happen, not for a time: the one place where tests look again and again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

WITHIN_S: Final = 60.0  # long: it costs nothing where all is well, and machines stand still
LOOK_S: Final = 0.01


async def until(
    done: Callable[[], object | Awaitable[object]], what: str = "it", within_s: float = WITHIN_S
) -> Any:
    """Return what `done` returns (or what that brings, when it is awaitable), as soon as it is
    true. `what` is waited for, in words."""
    deadline = time.monotonic() + within_s
    while True:
        found = done()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        await asyncio.sleep(LOOK_S)


def wait_for(done: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """Return what `done` returns, as soon as it is true; others may work meanwhile."""
    deadline = time.monotonic() + within_s
    while not (found := done()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(LOOK_S)
    return found
