"""The clock that the client and the connectors take their time from, and the one that tests set."""

import asyncio
import time

from proto import clock
from tests.leap import LeapingClock, leaping
from tests.until import until


def test_a_clock_is_in_force_only_for_what_is_done_meanwhile() -> None:
    with leaping() as mine:
        assert clock.in_force() is mine
        with clock.using(clock.SYSTEM):
            assert clock.in_force() is clock.SYSTEM
        assert clock.in_force() is mine
    assert clock.in_force() is clock.SYSTEM


def test_who_sleeps_and_what_was_to_be_called_go_on_in_their_order_after_a_leap() -> None:
    order: list[str] = []

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        order.append(name)

    async def act(ahead: LeapingClock) -> None:
        tasks = [
            asyncio.create_task(sleep("an hour", 3600)),
            asyncio.create_task(sleep("a day", 86400)),
        ]
        clock.call_later(60, lambda: order.append("a minute"))
        dropped = clock.call_later(60, lambda: order.append("dropped"))
        dropped.cancel()
        await until(lambda: ahead.sleeps(3600) and ahead.sleeps(86400))
        before = clock.monotonic()
        ahead.leap(4000)
        assert clock.monotonic() - before >= 4000
        await tasks[0]
        assert order == ["a minute", "an hour"]
        assert not tasks[1].done()
        ahead.leap(86400)
        await tasks[1]

    began = time.monotonic()
    with leaping() as ahead:
        asyncio.run(act(ahead))
    assert time.monotonic() - began < 60
    assert order == ["a minute", "an hour", "a day"]


def test_without_a_leap_it_goes_as_the_systems() -> None:
    async def act() -> float:
        began = time.monotonic()
        await clock.sleep(0.02)
        return time.monotonic() - began

    with leaping():
        assert asyncio.run(act()) >= 0.02
    assert asyncio.run(act()) >= 0.02


def test_whoever_gives_up_sleeping_leaves_no_timer_behind() -> None:
    async def act(ahead: LeapingClock) -> None:
        task = asyncio.create_task(clock.sleep(10))
        await until(lambda: ahead.sleeps(10))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not ahead.sleeps(10)

    with leaping() as ahead:
        asyncio.run(act(ahead))
