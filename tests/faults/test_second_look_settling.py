"""A consumer that works longer than its session lives, and what it says of that work."""

import time

import pytest

from tests.integration.bus import RouterProcess

SLOW_S = 1.2


@pytest.mark.fault("A17")
def test_who_works_longer_than_its_session_lives_settles_all_the_same() -> None:
    """A consumer without a loop of its own says nothing while it works. When that took longer than
    a session may be silent, its ack went into a session that was over, and the same delivery came
    again, for ever: three were handed out without end, and none was ever settled."""
    with (
        RouterProcess(bus="session_timeout_ms = 500") as router,
        router.blocking("producer") as bus,
        router.blocking("consumer") as consumer,
    ):
        for number in range(3):
            bus.publish(bus.message("test.message.v1", {"n": number}, subject=f"{number}"))
        worked = []
        for delivery in consumer.consume("sink", timeout_s=4):
            worked.append(delivery.message.json())
            time.sleep(SLOW_S)
            consumer.ack(delivery)
            if len(worked) == 12:
                break
        (row,) = router.ask("queues")["queues"]
        assert row["settled"] == 3
        assert len(worked) < 12
