"""A queue that is longer than its memory, and what a start finds of it."""

import asyncio
import random

from proto import Message
from proto.message import now_ms
from tests.integration.bus import RouterProcess
from tests.until import wait_for

COUNT = 4_800  # half of them: 300 fill the memory, and each of three lanes may have read 256 more
SUBJECTS = 40
SHORT = (
    "[destinations.sink]\nmemory_mib = 1\n[destinations.other]\n"
    '[[routes]]\ntype = "test.*"\nto = ["sink"]\n'
)


def _message(number: int, random: random.Random) -> Message:
    priority = random.choice((1, 2, 2, 3))
    subject = f"call-{number % SUBJECTS}"
    body = {"number": number, "filling": "x" * 1000}
    return Message.new("test.message.v1", "producer", body, subject=subject, priority=priority)


async def _publish(router: RouterProcess, messages: list[Message]) -> None:
    async with router.client("producer") as bus:
        assert await bus.publish_many(messages) == [None] * len(messages)


async def _take(router: RouterProcess, count: int) -> list[str]:
    taken: list[str] = []
    async with router.client("consumer") as bus:
        async for delivery in bus.consume("sink", credit=64):
            taken.append(delivery.message.id)
            delivery.ack()
            if len(taken) == count:
                break
    return taken


def _order(ids: list[str], messages: list[Message]) -> dict[str, list[str]]:
    subjects = {message.id: message.subject for message in messages}
    lines: dict[str, list[str]] = {}
    for id in ids:
        lines.setdefault(subjects[id], []).append(id)
    return lines


def test_what_does_not_fit_into_memory_comes_back_in_order_also_after_a_kill() -> None:
    chance = random.Random(1)
    messages = [_message(number, chance) for number in range(COUNT)]
    with RouterProcess(routes=SHORT) as router:
        asyncio.run(_publish(router, messages[: COUNT // 2]))
        (sink,) = [row for row in router.ask("queues")["queues"] if row["destination"] == "sink"]
        assert sink["on_disk_only"] > COUNT // 4
        assert sink["pending"] == COUNT // 2
        taken = asyncio.run(_take(router, COUNT // 10))
        router.kill()
        router.start()
        asyncio.run(_publish(router, messages[COUNT // 2 :]))
        rest = COUNT - router.ask("queues")["queues"][1]["settled"]
        taken += asyncio.run(_take(router, rest))
        assert router.ask("check")["wrong"] == []
    first = list(dict.fromkeys(taken))  # what was acknowledged as the router died may come again
    assert _order(first, messages) == _order([one.id for one in messages], messages)


def test_what_expired_while_the_router_was_away_is_counted() -> None:
    with RouterProcess(routes=SHORT) as router:
        with router.blocking("producer") as bus:
            expires = now_ms() + 500
            bus.publish(Message("a", "test.message.v1", "producer", "", now_ms(), expires=expires))
        router.kill()
        wait_for(lambda: now_ms() > expires, "its end")
        router.start()
        sink = router.wait_until("queues", lambda a: a["queues"][1]["expired"])["queues"][1]
        assert (sink["accepted"], sink["expired"], sink["pending"]) == (1, 1, 0)
        assert router.ask("check")["wrong"] == []
