"""When a failed delivery comes again, and when it is given up."""

from random import Random

from proto.wording import text
from router.settings import Backoff

JITTER = 0.2


def next_delay_ms(backoff: Backoff, attempts: int, random: Random) -> int:
    """Return the pause after this many attempts: exponential, capped, spread by +-20 %.

    The spread keeps a queue that failed together from coming back together.
    """
    pause = min(backoff.longest_ms, backoff.first_ms * backoff.factor ** min(attempts - 1, 60))
    return max(1, int(pause * random.uniform(1 - JITTER, 1 + JITTER)))


def given_up(backoff: Backoff, attempts: int, age_ms: int) -> str | None:
    """Return why no further attempt is made, or None when one is."""
    if attempts >= backoff.attempts_max:
        return text("router.dead_attempts", count=attempts)
    if age_ms >= backoff.age_max_ms:
        return text("router.dead_age", seconds=age_ms // 1000)
    return None
