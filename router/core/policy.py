"""When a failed delivery comes again, and when it is given up."""

from random import Random

from proto.frames import Settlement
from proto.wording import text
from router.settings import Backoff

JITTER = 0.2


def next_delay_ms(backoff: Backoff, attempts: int, random: Random) -> int:
    """Return the pause after this many attempts: exponential, capped, spread by +-20 %.

    The spread keeps a queue that failed together from coming back together.
    """
    pause = min(backoff.longest_ms, backoff.first_ms * backoff.factor ** min(attempts - 1, 60))
    return max(1, int(pause * random.uniform(1 - JITTER, 1 + JITTER)))


def pauses_ms(backoff: Backoff, attempts: int, told: Settlement, random: Random) -> tuple[int, int]:
    """Return the pause before the next attempt, and what it may be brought down to.

    What the consumer wants is done; what its partner asks for is kept between the policy's own
    pause and its longest, and may be brought down to the first.
    """
    if told.after_ms is not None and not told.wish:
        return told.after_ms, told.after_ms
    own_ms = next_delay_ms(backoff, attempts, random)
    return max(own_ms, min(told.after_ms or 0, backoff.longest_ms)), own_ms


def given_up(backoff: Backoff, attempts: int, age_ms: int) -> str | None:
    """Return why no further attempt is made, or None when one is."""
    if attempts >= backoff.attempts_max:
        return text("router.dead_attempts", count=attempts)
    if age_ms >= backoff.age_max_ms:
        return text("router.dead_age", seconds=age_ms // 1000)
    return None
