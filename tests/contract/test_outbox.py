"""What a connector tells of its own accord reaches the bus, once it is there and takes it."""

import asyncio

import pytest

from connectors.runtime.bus.outbox import PAUSE_S, Outbox
from proto import frames
from proto.client import BusClient
from proto.errors import Code
from proto.message import Message
from tests.contract.stage import Bus
from tests.leap import LeapingClock, leaping
from tests.until import until


async def _work(bus: Bus, time: LeapingClock) -> None:
    client = BusClient(bus.address, name="ats")
    serving = asyncio.create_task(bus.serve())
    await client.start()
    outbox = Outbox(client, 100)
    running = asyncio.create_task(outbox.run())
    try:
        bus.refuse, bus.retry_ms = Code.STORE_FULL, 10
        for number in range(50):
            await outbox.put(Message.new("test.message.v1", "ats", b"", id=f"m{number}"))
        for times in (1, 2):
            await until(lambda n=times: bus.heard[frames.PUBLISH] == n, "a refusal")  # type: ignore[misc]
            assert bus.accepted == []
            await until(lambda: time.sleeps(PAUSE_S), "its pause")
            time.leap(PAUSE_S)
        await until(lambda: bus.heard[frames.PUBLISH] == 3, "a refusal")
        bus.refuse = None
        await until(lambda: time.sleeps(PAUSE_S), "its pause")
        time.leap(PAUSE_S)
        async with asyncio.timeout(10):
            await outbox.drain()
        assert [message.id for message in bus.accepted] == [f"m{number}" for number in range(50)]

        bus.refuse = Code.NO_ROUTE  # for good: told, and not in the way of the next
        await outbox.put(Message.new("test.message.v1", "ats", b"", id="nowhere"))
        async with asyncio.timeout(10):
            await outbox.drain()

        bus.refuse, bus.silent = None, True
        said = bus.heard[frames.PUBLISH]
        await outbox.put(Message.new("test.message.v1", "ats", b"", id="last"))
        await until(lambda: bus.heard[frames.PUBLISH] > said, "it to be published")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        bus.silent = False
        await outbox.finish(5)
        assert bus.accepted[-1].id == "last"
    finally:
        running.cancel()
        await client.close()
        serving.cancel()
        await asyncio.gather(running, serving, return_exceptions=True)


def test_nothing_is_dropped_but_what_is_refused_for_good(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    with leaping() as time:
        asyncio.run(_work(bus, time))
    assert caplog.text.count("no_route") == 1
