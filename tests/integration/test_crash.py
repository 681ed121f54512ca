"""kill -9 of the router in the middle of a run: nothing accepted is lost, no order broken."""

import asyncio
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field

from proto import BusClient
from tests.integration.bus import RouterProcess
from tests.until import until

PRODUCERS = 3
CONSUMERS = 3
MESSAGES = 10_000
SUBJECTS_EACH = 20
KILLS = 4
RECONNECT_S = 2.0

PEERS = (*(f"producer{n}" for n in range(PRODUCERS)), "consumer")
PERMISSIONS = '[peers.consumer]\nconsume = ["sink"]\n' + "".join(
    f'[peers.producer{n}]\npublish = ["test.*"]\n' for n in range(PRODUCERS)
)


@dataclass
class History:
    """What was accepted, what was delivered in which order, and when peers were back."""

    accepted: set[str] = field(default_factory=set)
    effects: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[str, str] = field(default_factory=dict)  # message id -> delivery key
    repeats: int = 0
    back_s: list[float] = field(default_factory=list)

    def take(self, message_id: str, subject: str, number: int, key: str) -> None:
        """Note one delivery; the first of its key has the effect."""
        if message_id in self.keys:
            assert self.keys[message_id] == key, "a repeat came under another delivery id"
            self.repeats += 1
            return
        self.keys[message_id] = key
        self.effects[subject].append(number)


async def _produce(bus: BusClient, history: History, count: int) -> None:
    for start in range(0, count, 100):
        messages = [
            bus.message("test.message.v1", {"number": n}, subject=f"{bus.name}-{n % SUBJECTS_EACH}")
            for n in range(start, min(start + 100, count))
        ]
        results = await bus.publish_many(messages)
        assert results == [None] * len(messages)
        history.accepted.update(message.id for message in messages)


async def _consume(bus: BusClient, history: History) -> None:
    async for batch in bus.consume("sink", credit=100).batches():
        for delivery in batch:
            body = delivery.message.json()
            assert isinstance(body, dict)
            history.take(
                delivery.message.id, delivery.message.subject, body["number"], delivery.key
            )
            delivery.ack()
        await asyncio.sleep(0.001)


async def _kill_now_and_then(
    router: RouterProcess, peers: int, history: History, rng: random.Random
) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(rng.uniform(0.2, 0.8))
        router.kill()
        await asyncio.sleep(rng.uniform(0, 0.5))
        await asyncio.to_thread(router.start)
        began = time.monotonic()

        async def are_back() -> bool:
            return bool((await asyncio.to_thread(router.ask, "status"))["sessions"] >= peers)

        await until(are_back, "the peers to come back", 30)
        history.back_s.append(time.monotonic() - began)


async def _campaign(router: RouterProcess, seed: int) -> History:
    history = History()
    producers = [router.client(f"producer{n}") for n in range(PRODUCERS)]
    consumers = [router.client("consumer") for _ in range(CONSUMERS)]
    for peer in (*producers, *consumers):
        await peer.start()
        await peer.wait_welcomed()
    consuming = [asyncio.create_task(_consume(bus, history)) for bus in consumers]
    killing = asyncio.create_task(
        _kill_now_and_then(router, PRODUCERS + CONSUMERS, history, random.Random(seed))
    )
    await asyncio.gather(*(_produce(bus, history, MESSAGES // PRODUCERS) for bus in producers))
    await killing

    def all_came() -> bool:
        for task in consuming:
            assert not task.done(), task.exception()
        return not history.accepted - history.keys.keys()

    await until(all_came, "accepted messages to be delivered")
    for task in consuming:
        task.cancel()
    for peer in (*consumers, *producers):
        await peer.close()
    return history


def test_kill_9_of_the_router_loses_nothing_and_breaks_no_order() -> None:
    seed = 7
    print(f"seed {seed}")
    with RouterProcess(peers=PEERS, permissions=PERMISSIONS) as router:
        history = asyncio.run(_campaign(router, seed))
        expected = MESSAGES // PRODUCERS * PRODUCERS
        assert len(history.accepted) == expected
        assert history.accepted == set(history.keys)
        for subject, numbers in history.effects.items():
            assert numbers == sorted(numbers), f"order broken in {subject}"
        print(f"{KILLS} kills, {history.repeats} repeats, peers back in {history.back_s}")
        assert max(history.back_s) < RECONNECT_S
        status = router.wait_until("status", lambda s: s["open"] == 0)
        row = status["queues"][0]
        assert row["accepted"] == row["settled"] == expected
