"""Retry-After: the seconds or the date until which a partner asks to be left alone."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from connectors.runtime.partner.http import HttpAnswer

LONGEST_S: Final = 3600.0
_DIGITS_MAX: Final = 9


def retry_after_s(answer: HttpAnswer) -> float | None:
    """Return the seconds, at most an hour; None for a time that has passed and for what is neither
    a number nor a date: the pause is our own then."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value) if len(value) <= _DIGITS_MAX else LONGEST_S
    else:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        seconds = (until - datetime.now(UTC)).total_seconds()
    return min(seconds, LONGEST_S) if seconds > 0 else None
