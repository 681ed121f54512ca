"""A clock that is wrong, steps, and is set right: nothing dies of it, and nothing waits for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proto import frames
from router.core.clock import DOWNTIME_MS, TRUST_MS
from router.core.policy import longest_pause_ms
from router.settings import Backoff, Destination
from tests.faults.lives import DAY, HOUR, NOON, Lives, brisk, message, settings


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path, settings(brisk()))
    yield lives
    lives.close()


@pytest.mark.fault("A3")
def test_a_start_with_a_clock_that_is_behind_holds_nothing_back(lives: Lives) -> None:
    """A router that started three hours behind, mended after 2 s, let retries and timers wait for
    three hours. Right: no longer than the policy's longest pause, and until their time."""
    lives.consume()
    lives.accept(message("tried"), message("timer", not_before=NOON + 20 * 60_000))
    lives.settle(lives.taken()["tried"], outcome=frames.RETRY)
    lives.begin(NOON + 60_000 - 3 * HOUR)
    lives.consume()
    lives.wait(2_000, step_ms=3 * HOUR)
    assert lives.now.wall_ms == NOON + 62_000
    assert lives.taken() == {"tried": 1}, "it had waited for its time, as the policy says"
    lives.wait(18 * 60_000)
    assert lives.taken() == {}
    lives.wait(60_000)
    assert lives.taken() == {"timer": 2}


@pytest.mark.fault("A3")
def test_a_retry_waits_no_longer_than_its_policy_at_a_start(lives: Lives) -> None:
    """Whatever the clock was when it was put off, and is now."""
    lives.consume()
    lives.accept(message("a"))
    lives.wait(1_000, step_ms=9 * DAY)
    lives.settle(lives.taken()["a"], outcome=frames.RETRY)
    lives.begin(NOON)
    lives.consume()
    lives.wait(longest_pause_ms(Backoff(longest_ms=1_000)))
    assert list(lives.taken()) == ["a"]


@pytest.mark.fault("A3")
def test_days_ahead_for_seconds_kills_nothing(tmp_path: Path) -> None:
    """Five days ahead for 2 s and one HTTP 503: 21 of 22 were dead and one expired. Right: none."""
    lives = Lives(tmp_path, settings(Destination()))
    lives.consume(100)
    lives.accept(*(message(f"{n}") for n in range(21)), message("until", expires=NOON + HOUR))
    held = lives.taken()
    lives.wait(1_000, step_ms=5 * DAY)
    lives.settle(*held.values(), outcome=frames.RETRY)
    lives.wait(1_000)
    assert lives.totals()["dead"] == lives.totals()["expired"] == 0
    lives.wait(1_000, step_ms=-5 * DAY)
    lives.wait(300_000)
    assert lives.taken().keys() == held.keys()
    lives.close()


@pytest.mark.fault("A3")
def test_age_is_what_the_router_saw_pass(tmp_path: Path) -> None:
    """A clock that stays wrong makes nothing old, and time that has passed does."""
    lives = Lives(tmp_path, settings(Destination(backoff=Backoff(age_max_ms=HOUR))))
    lives.consume()
    lives.accept(message("a"))
    lives.wait(1_000, step_ms=9 * DAY)
    lives.wait(2 * TRUST_MS)
    lives.settle(lives.taken()["a"], outcome=frames.RETRY)
    assert lives.totals()["dead"] == 0
    lives.wait(HOUR)
    lives.settle(lives.taken()["a"], outcome=frames.RETRY)
    assert lives.totals()["dead"] == 1
    lives.close()


@pytest.mark.fault("A3")
def test_a_message_is_not_refused_as_expired_by_a_clock_that_is_wrong(lives: Lives) -> None:
    """A sibling: while the clock was days ahead, whatever had an end to its time was refused for
    ever. Right: it is taken, and judged by a clock that is believed."""
    lives.wait(1_000, step_ms=5 * DAY)
    assert lives.accept(message("a", expires=NOON + HOUR)) == []
    assert lives.accept(message("b", expires=NOON - HOUR)) == ["expired"]
    lives.wait(1_000, step_ms=-5 * DAY)
    lives.consume()
    assert list(lives.taken()) == ["a"]


@pytest.mark.fault("A3")
def test_a_timer_of_weeks_is_not_woken_by_a_clock_that_is_wrong_for_seconds(lives: Lives) -> None:
    """A sibling: and a clock that keeps its new course is believed in the end."""
    lives.consume()
    lives.accept(message("weeks", not_before=NOON + 15 * DAY))
    lives.wait(2_000, step_ms=20 * DAY)
    lives.wait(2_000, step_ms=-20 * DAY)
    assert lives.taken() == {}
    lives.begin(NOON + 20 * DAY)
    lives.consume()
    lives.wait(TRUST_MS - 2_000)
    assert lives.taken() == {}, "so much later than the newest message, it has to keep its course"
    lives.wait(2_000)
    assert list(lives.taken()) == ["weeks"]


@pytest.mark.fault("A3")
def test_a_start_after_an_ordinary_stop_believes_its_clock(lives: Lives) -> None:
    """What ran out while the router was down is not delivered, and what came due is, at once."""
    lives.accept(message("over", expires=NOON + HOUR), message("due", not_before=NOON + HOUR))
    lives.begin(NOON + DOWNTIME_MS)
    lives.consume()
    assert list(lives.taken()) == ["due"]
    assert lives.totals()["expired"] == 1


@pytest.mark.fault("A3")
def test_the_latest_attempt_is_the_last_one_whatever_the_clock_says(lives: Lives) -> None:
    """Set back one hour while running, replay, restart: the old attempts counted again, and the
    next one was an hour away."""
    lives.consume()
    lives.accept(message("a"))
    delivery = lives.taken()["a"]
    lives.settle(delivery, outcome=frames.RETRY)
    lives.wait(1_200)
    lives.settle(lives.taken()["a"], outcome=frames.REJECT)
    lives.wait(1_000, step_ms=-HOUR)
    assert lives.store is not None
    lives.core.replay(lives.store.letters([delivery], 1_000_000), "mended", lives.now)
    lives.flush()
    lives.begin()
    lives.consume()
    lives.wait(1_200)
    assert lives.taken() == {"a": delivery}


@pytest.mark.fault("D12")
def test_absurd_times_are_refused_by_name(lives: Lives) -> None:
    """The year 292 million in an envelope is refused, or means never; nothing breaks of it."""
    far = 2**63 - 1
    lives.consume()
    assert lives.accept(message("a", not_before=far)) == ["bad_message"]
    late = frames.Publish(99, [message("b", expires=far)])
    lives.hear(b"p", frames.PUBLISH, late)
    lives.flush()
    assert list(lives.taken()) == ["b"]
    lives.wait(1_000)
    lives.wait(1_000, step_ms=9 * DAY)
    assert lives.totals()["expired"] == 0
