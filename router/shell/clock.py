"""The time, as the core is fed it."""

import time

from proto.message import now_ms
from router.core.clock import Now


def now() -> Now:
    """Return the time of the day (ms, UTC) and that of the clock that never steps (ms)."""
    return Now(now_ms(), time.monotonic_ns() // 1_000_000)
