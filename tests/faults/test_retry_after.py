"""Retry-After: how long a partner may hold up what it did not take."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from starlette.responses import Response

from connectors.runtime.partner.http import HttpAnswer
from connectors.runtime.partner.retryafter import LONGEST_S, retry_after_s
from proto.message import Priority
from tests.faults.partnerhouse import Asked, Side, house, taken
from tests.until import until

# One stays closed, whatever comes: what is looked at is the pause of each message.
NEVER = {"failures_max": 10_000}
LEAST = 0.8  # of a pause, which is spread
PAST = "Wed, 21 Oct 2015 07:28:00 GMT"


def later(value: str, status: int = 503) -> Response:
    return Response(status_code=status, headers={"retry-after": value})


def times(side: Side) -> list[list[float]]:
    """Return when each message was tried, of all that were."""
    found: dict[bytes, list[float]] = {}
    for one in side.asked:
        found.setdefault(one.body, []).append(one.at)
    return list(found.values())


@pytest.mark.fault("A5")
@pytest.mark.parametrize(("value", "status"), [("0", 503), ("1", 500)])
def test_no_retry_after_makes_a_hot_loop(value: str, status: int) -> None:
    """Retry-After: 0 or a date that has passed was a hot loop, and 1 spent all attempts in as many
    seconds; the pause is never shorter than the policy's own, which grows."""

    async def act() -> None:
        side = Side(lambda _: later(value, status))
        backoff = "first_ms = 200, factor = 10.0, longest_ms = 60000, attempts_max = 5"
        async with house(side, backoff, breaker=NEVER) as whole:
            for number in range(20):
                await whole.bring(f"card {number}")
            await until(lambda: [len(one) > 2 for one in times(side)] == [True] * 20, "the third")
            for one in times(side):
                assert one[1] - one[0] >= 0.2 * LEAST
                assert one[2] - one[1] >= 2.0 * LEAST
            assert (await whole.states())["dead"] == 0

    asyncio.run(act())


@pytest.mark.fault("A5")
def test_an_hour_is_no_longer_than_the_longest_pause_of_the_queue() -> None:
    """Retry-After: 3600, given once, held an emergency for an hour though the partner was well
    after a second; the policy's longest pause is the limit."""

    async def act() -> None:
        side = Side(lambda asked: later("3600") if asked is side.asked[0] else taken())
        async with house(side, "first_ms = 100, longest_ms = 1500") as whole:
            await whole.bring("a call", Priority.EMERGENCY)
            await until(lambda: len(side.asked) == 2, "the second attempt", 10)

    asyncio.run(act())


@pytest.mark.fault("A5")
def test_what_a_partner_takes_wakes_what_it_put_off() -> None:
    """While a partner takes other messages, one that it put off for an hour waits no longer than
    by our own policy."""

    async def act() -> None:
        def say(asked: Asked) -> Response:
            return later("3600", 429) if not side.asked[1:] else taken()

        side = Side(say)
        async with house(side, "first_ms = 100, longest_ms = 3600000") as whole:
            await whole.bring("a call", Priority.EMERGENCY)
            await until(lambda: len(side.asked) == 1, "the first attempt")
            await asyncio.sleep(0.5)
            assert side.bodies() == [b"a call"]
            await whole.bring("another")
            await until(lambda: side.bodies()[1:] == [b"another", b"a call"], "both", 10)

    asyncio.run(act())


@pytest.mark.fault("A5")
@pytest.mark.parametrize(
    "value", ["", "0", PAST, "-5", "soon", "1.5", "1e9", "١٢", "Wed, 99 Foo 2015", "1" * 20 + "x"]
)
def test_what_says_no_time_to_come_leaves_the_pause_to_us(value: str) -> None:
    """Garbage, nothing and the past are no time."""
    assert retry_after_s(HttpAnswer(503, {"retry-after": value}, b"")) is None


@pytest.mark.fault("A5")
def test_seconds_and_dates_are_read_up_to_an_hour() -> None:
    """A date was ignored, and so was a number with white space around it."""

    def told(value: str) -> float:
        found = retry_after_s(HttpAnswer(503, {"retry-after": value}, b""))
        assert found is not None
        return found

    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert told("7") == told(" 7 ") == 7
    assert told("99999") == told("9" * 5000) == LONGEST_S
    assert 80 < told(format_datetime(soon, usegmt=True)) <= 90
    assert told("Fri, 31 Dec 9999 23:59:59 GMT") == LONGEST_S
