"""When a failed delivery comes again, and when it is given up."""

from random import Random
from typing import Final

from proto.frames import Settlement
from proto.note import coded
from router.settings import Backoff

JITTER: Final = 0.2
VANISHED_QUICK_MAX: Final = 2  # so often it goes again at once when its consumer has died,
SUSPECT_MIN: Final = 2  # and then alone: it may be the cause
QUICK_MAX: Final = 3  # so many attempts a consumer may have at its own pace, also at once


def next_delay_ms(backoff: Backoff, attempts: int, random: Random) -> int:
    """Return the pause after this many attempts: exponential, capped, spread by +-20 %.

    The spread keeps a queue that failed together from coming back together.
    """
    pause = _pause(backoff, attempts)
    return max(1, int(pause * random.uniform(1 - JITTER, 1 + JITTER)))


def pause_ms(backoff: Backoff, attempts: int, asked: int | None, random: Random) -> int:
    """Return the pause after this many attempts when the consumer `asked` for one, or for none.

    Its wish is kept within the policy: never longer than the longest, and after `QUICK_MAX`
    attempts not shorter than what the policy began with.
    """
    if asked is None:
        return next_delay_ms(backoff, attempts, random)
    least = _pause(backoff, attempts - QUICK_MAX) if attempts > QUICK_MAX else 0
    return int(min(max(asked, least), longest_pause_ms(backoff)))


def pauses_ms(backoff: Backoff, attempts: int, told: Settlement, random: Random) -> tuple[int, int]:
    """Return the pause before the next attempt, and what it may be brought down to: less only when
    it is the wish of the consumer's partner, which is kept between the policy's own pause and its
    longest."""
    if told.after_ms is None or not told.wish:
        pause = pause_ms(backoff, attempts, told.after_ms, random)
        return pause, pause
    own = next_delay_ms(backoff, attempts, random)
    return max(own, min(told.after_ms, backoff.longest_ms)), own


def longest_pause_ms(backoff: Backoff) -> int:
    """Return the longest pause that a policy gives, with its spread."""
    return int(backoff.longest_ms * (1 + JITTER))


def _pause(backoff: Backoff, attempts: int) -> float:
    return min(backoff.longest_ms, backoff.first_ms * backoff.factor ** min(attempts - 1, 60))


def given_up(backoff: Backoff, attempts: int, age_ms: int) -> str | None:
    """Return the note that says why no further attempt is made, None when one is."""
    if attempts >= backoff.attempts_max:
        return coded("bus.attempts_over", count=attempts)
    if age_ms >= backoff.age_max_ms:
        return coded("bus.age_over", seconds=age_ms // 1000)
    return None
