"""What is not due takes no place from what is."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.message import Priority
from router.core.queue import MIB
from router.settings import Destination
from tests.faults.lives import DAY, NOON, Lives, message, settings

TIMERS = 20_000


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path, settings(Destination(memory_mib=4)))
    yield lives
    lives.close()


def timers(count: int = TIMERS, days: int = 15) -> list[tuple[str, int]]:
    """Return ids and times of documents that wait for their answers, all in one lane."""
    return [(f"document-{n}", NOON + days * DAY + n) for n in range(count)]


@pytest.mark.fault("A6")
def test_timers_of_weeks_do_not_stop_a_queue(lives: Lives) -> None:
    """75,000 document timers of 15 days, and remd and vimis got nothing new. Right: they take no
    place in their lane, neither now nor after a restart, and come when they are due."""
    waiting = [message(id, Priority.ROUTINE, not_before=at) for id, at in timers()]
    lives.accept(*waiting)
    queue = lives.core.queues["sink"]
    assert (queue.open, queue.sleepers.total) == (TIMERS, TIMERS)
    assert queue.resident_bytes == [0, 0, 0, 0]
    lives.consume()
    lives.accept(message("new", Priority.ROUTINE))
    assert list(lives.taken()) == ["new"]

    lives.begin(NOON + 1_000)
    queue = lives.core.queues["sink"]
    assert (queue.open, queue.sleepers.total) == (TIMERS + 1, TIMERS)
    lives.consume()
    lives.accept(message("newer", Priority.ROUTINE))
    assert list(lives.taken()) == ["new", "newer"]


@pytest.mark.fault("A6")
def test_what_was_filed_before_goes_to_sleep_when_it_is_read(tmp_path: Path) -> None:
    """A sibling: those that came while their queue was crowded stood in its line on the disk."""
    lives = Lives(tmp_path, settings(Destination(memory_mib=1)))
    full = message("full", Priority.ROUTINE, body=bytes(MIB // 4))
    assert lives.store is not None
    lives.accept(full, message("after", Priority.ROUTINE))
    old = [message(id, Priority.ROUTINE, not_before=at) for id, at in timers(1_000, 1)]
    lives.accept(*old)
    # As an older router filed them: in line.
    db = lives.store._db
    db.execute("update backlog set lane = lane - 4, subject_hash = 0 where lane > 3")
    lives.begin(NOON + 1_000)
    queue = lives.core.queues["sink"]
    assert queue.spill.total == 1_001
    lives.consume()
    lives.settle(*lives.taken().values())
    lives.settle(*lives.taken().values())
    assert (queue.open, queue.sleepers.total, queue.spill.total) == (1_000, 1_000, 0)
    assert lives.store._one("select count(*) from backlog where lane = 6") == 1_000
    lives.close()


@pytest.mark.fault("A6")
def test_all_that_is_due_in_one_moment_comes_within_the_memory(lives: Lives) -> None:
    """A sibling: thousands that wake together neither fill the memory nor get lost."""
    count = 3_000
    lives.accept(*(message(f"{n}", not_before=NOON + 60_000, body=bytes(1_000))
                   for n in range(count)))  # fmt: skip
    lives.wait(60_000)
    queue = lives.core.queues["sink"]
    assert max(queue.resident_bytes) <= MIB + 64 * 2_000
    lives.consume(window=500)
    seen: set[str] = set()
    while taken := lives.taken():
        assert seen.isdisjoint(taken)
        seen |= taken.keys()
        lives.settle(*taken.values())
        assert max(queue.resident_bytes) <= MIB * 4 + 64 * 2_000
    assert len(seen) == count


@pytest.mark.fault("A6")
def test_a_hundred_thousand_timers_are_cheap(lives: Lives) -> None:
    """One number each in memory, and a turn of the router does not look at all of them."""
    queue = lives.core.queues["sink"]
    for n in range(100_000):
        queue.sleepers.add(2, n, NOON + DAY + n)
    began = time.perf_counter()
    for _ in range(10_000):
        lives.core.tick(lives.now)
        lives.core._dispatch(queue, lives.now)
    assert time.perf_counter() - began < 5, "it takes some 0.1 s"
    assert len(lives.core._timers) < 10
