"""Credit that was refused for a moment, settlements that break a rule, and attempts put off: each
has a way out that needs no restart."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from proto import frames
from router.settings import Backoff, Destination, Permission
from tests.faults.lives import Lives, message, settings

SLOW = Destination(backoff=Backoff(first_ms=60_000, longest_ms=300_000))


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path, settings(SLOW))
    yield lives
    lives.close()


def reload(lives: Lives, consume: list[str], *queues: str) -> None:
    """Put other rights and queues in force."""
    config = settings(SLOW, **{name: Destination() for name in queues})
    permissions = {**config.permissions, "consumer": Permission(consume=consume, serve=["*"])}
    lives.config = msgspec.structs.replace(config, permissions=permissions)
    lives.core.configure(lives.config, lives.now)
    lives.flush()


def codes(lives: Lives) -> list[str]:
    """Return the errors that the consumer heard."""
    return [one.code for one in lives.answers(b"c") if isinstance(one, frames.Error)]


@pytest.mark.fault("A2")
def test_a_right_that_comes_back_is_used_at_once(lives: Lives) -> None:
    """`consume` was lost by a typo and mended 2 s later: 40 s later there was no consumer. Right:
    the router remembers the credit, and gives by itself what it was asked for."""
    lives.consume(5)
    reload(lives, ["something-else"])
    assert codes(lives) == ["not_permitted"]
    lives.accept(message("a"))
    assert lives.taken() == {}
    reload(lives, ["sink"])
    assert list(lives.taken()) == ["a"]
    lives.hear(b"c", frames.CREDIT, frames.Credit("sink", 1))  # a client that asks again by itself
    lives.accept(message("b"))
    assert lives.taken() == {}, "what it says now counts"


@pytest.mark.fault("A2")
def test_a_connector_may_start_before_its_right_and_its_queue(lives: Lives) -> None:
    """A sibling: also questions found nobody who served, until a restart."""
    reload(lives, [])
    lives.greet(b"c", "consumer")
    lives.hear(b"c", frames.CREDIT, frames.Credit("late", 0))
    lives.hear(b"c", frames.CREDIT, frames.Credit("sink", 3))
    assert codes(lives) == ["unknown_destination", "not_permitted"]
    reload(lives, ["*"], "late")
    lives.accept(message("a"))
    assert list(lives.taken()) == ["a"]
    question = message("q", type="ask.question.v1")
    lives.hear(b"p", frames.REQUEST, frames.Request(1, "late", 1_000, question))
    assert [type(one) for one in lives.answers(b"c")] == [frames.Request]


@pytest.mark.fault("A2")
def test_what_is_remembered_is_bounded(lives: Lives) -> None:
    """A peer may name queues without end."""
    lives.greet(b"c", "consumer")
    for n in range(10_000):
        lives.hear(b"c", frames.CREDIT, frames.Credit(f"no-{n}", 5))
    assert len(lives.core.sessions[b"c"].wanted) <= 64


@pytest.mark.fault("C2")
def test_one_bad_settlement_does_not_take_the_others_along(lives: Lives) -> None:
    """A note of 301 characters or a pause of -1 ms dropped the whole SETTLE, and its deliveries
    hung until the session ended. Right: each counts for itself, and the peer is told."""
    lives.accept(*(message(f"{n}") for n in range(6)))
    lives.consume()
    held = list(lives.taken().values())
    rows: list[object] = [
        [held[0]], [held[1], 0, None, "x" * 301], [held[2], 1, -1], [held[3], 1, 2**60],
        [held[4], 7], "nonsense", [held[5], 0, None, None],
    ]  # fmt: skip
    payload = msgspec.msgpack.encode([rows])
    lives.core.receive(b"c", b"", [frames.SETTLE, payload], lives.now)
    lives.flush()
    assert codes(lives) == ["bad_frame"]
    queue = lives.core.queues["sink"]
    assert queue.totals["settled"] == 3
    assert queue.retrying + len(lives.core.sessions[b"c"].holdings["sink"].held) == 3
    lives.wait(400_000)
    assert len(lives.taken()) >= 2, "none waits longer than the policy's longest"


@pytest.mark.fault("A5")
def test_an_operator_has_it_tried_now(lives: Lives) -> None:
    """The partner was well after a second, and nothing hastened what waited an hour for it."""
    lives.accept(message("a", subject="s"), message("b", subject="t"), message("c", subject="s"))
    lives.consume()
    lives.settle(*lives.taken().values(), outcome=frames.RETRY)
    assert lives.core.try_now("sink", "s", lives.now) == 1
    assert list(lives.taken()) == ["a"]
    assert lives.core.try_now("sink", None, lives.now) == 1
    assert list(lives.taken()) == ["b"]
    assert lives.core.try_now("nowhere", None, lives.now) is None


@pytest.mark.fault("A5")
def test_a_timer_that_was_overtaken_does_not_cut_the_next_pause(lives: Lives) -> None:
    """A sibling: the timer of the attempt that was hastened is void."""
    lives.accept(message("a"))
    lives.consume()
    lives.settle(*lives.taken().values(), outcome=frames.RETRY)  # for 48 to 72 s
    lives.core.try_now("sink", None, lives.now)
    lives.settle(*lives.taken().values(), outcome=frames.RETRY, after=200_000)
    lives.wait(190_000)
    assert lives.taken() == {}
    lives.wait(10_000)
    assert list(lives.taken()) == ["a"]


@pytest.mark.fault("A5")
def test_a_consumer_cannot_make_a_hot_loop(lives: Lives) -> None:
    """`Retry-After: 0`: 11,488 requests in 10 s. Right: a few at once, then the policy's pace."""
    lives.accept(message("a"))
    lives.consume()
    tried = 0
    for _ in range(100):
        if taken := lives.taken():
            tried += 1
            lives.settle(*taken.values(), outcome=frames.RETRY, after=0)
    assert tried == 4


@pytest.mark.fault("B17")
def test_a_counter_of_ends_only_grows(lives: Lives) -> None:
    """`smpbus_queue_ended_total` went down at a replay, and (a sibling) at a drop."""
    lives.accept(message("a"), message("b"))
    lives.consume()
    lives.settle(*lives.taken().values(), outcome=frames.REJECT)
    queue = lives.core.queues["sink"]
    assert lives.store is not None
    lives.core.replay(lives.store.letters([1], 1_000), "mended", lives.now)
    lives.core.drop([(2, "sink")], "old")
    lives.flush()
    assert queue.totals["dead"] == 0
    assert queue.ended == {"settled": 0, "dead": 2, "expired": 0}
