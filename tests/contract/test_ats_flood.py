"""The exchange's connector in a flood of events, and when nobody takes what it tells."""

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.partners.ats import AtsConnector
from connectors.partners.ats.ami import Packet, Parser
from connectors.partners.ats.calls import CallBook, CallEvent
from connectors.partners.ats.gap import catch_up
from connectors.partners.ats.session import HELD_MAX
from connectors.partners.ats.unsent import MEMORY_MAX
from connectors.runtime.bus.outbox import Outbox
from proto.client import BusClient
from proto.message import Message
from tests.bench.amistream import Stream
from tests.bench.exchange import BANNER, PouringExchange
from tests.contract.stage import Bus
from tests.integration.bus import RouterProcess
from tests.ports import free_port
from tests.until import until

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
TYPE = "telephony.call.v1"
ROUTES = (
    '[destinations.ats]\n[destinations.sink]\n[[routes]]\ntype = "telephony.*"\nto = ["sink"]\n'
)
PERMISSIONS = (
    '[peers.ats]\npublish = ["*"]\nconsume = ["ats"]\n[peers.consumer]\nconsume = ["sink"]\n'
)


@contextlib.asynccontextmanager
async def listening(
    exchange: PouringExchange, client: BusClient, folder: Path, **more: Any
) -> AsyncIterator[AtsConnector]:
    """The connector at work on the exchange."""
    port = free_port()
    password = folder / "ats.password"
    password.touch(mode=0o600)
    password.write_text("smpbus:made-up\n")
    partner = {"url": f"tcp://127.0.0.1:{port}", "credentials_file": password, "timeout_s": 0.3}
    table = {"partner": partner, "ping_s": 0.1, "statistics_s": 60.0, **more}
    server = await asyncio.start_server(exchange.serve, "127.0.0.1", port)
    connector = AtsConnector("ats", msgspec.convert(table, AtsConnector.Settings), client)
    staying = asyncio.create_task(connector.stay())
    try:
        yield connector
    finally:
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)
        await connector.close()
        server.close()


@contextlib.asynccontextmanager
async def at_bus(bus: Bus) -> AsyncIterator[BusClient]:
    """The bus's end, and a client of it."""
    serving = asyncio.create_task(bus.serve())
    try:
        async with BusClient(bus.address, name="ats") as client:
            await client.wait_welcomed()
            yield client
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def pour(outbox: Outbox) -> None:
    """Leave no room."""
    while True:
        await outbox.put(Message.new("test.message.v1", "ats", b""))


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_twenty_thousand_events_at_once_and_a_line_that_breaks_leave_no_call_and_double_none(
    tmp_path: Path,
) -> None:
    """Events are cut anywhere, most mean nothing, the line breaks off twice in the middle of one,
    and what happens until the connector is back nobody hears."""
    stream = Stream(480)
    assert len(stream.events) > 20_000
    exchange = PouringExchange(stream, breaks=(6_000, 13_000), lost=400)
    told: list[Any] = []

    async def hear(bus: BusClient) -> None:
        async for batch in bus.consume("sink", credit=2000).batches():
            for delivery in batch:
                if delivery.message.type == TYPE:
                    told.append(delivery.message.json())
                delivery.ack()

    async def work(router: RouterProcess) -> None:
        async with router.client("ats") as client, router.client("consumer") as consumer:
            hearing = asyncio.create_task(hear(consumer))
            live = tmp_path / "live"
            async with listening(exchange, client, tmp_path, live_calls_file=live) as connector:
                await exchange.done.wait()
                await until(lambda: not connector._hearing.calls.calls)
                await until(lambda: told_of(told, "ended") == told_of(told, "started"))
            await stop(hearing)

    with RouterProcess(peers=("ats", "consumer"), routes=ROUTES, permissions=PERMISSIONS) as router:
        asyncio.run(work(router))
    assert exchange.logins == 3
    assert len(told_of(told, "started")) > 440  # the others came and went while the line was down
    once = [one for one in told if one["event"] in ("started", "answered", "ended")]
    counts = Counter((one["call_id"], one["event"]) for one in once)
    assert set(counts.values()) == {1}
    assert any(one.get("cause") == "lost_sight" for one in told)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 1000), st.lists(st.tuples(st.integers(1, 300), st.integers(0, 200)), max_size=5)
)
def test_wherever_the_line_breaks_and_whatever_is_missed_each_call_begins_and_ends_once(
    seed: int, breaks: list[tuple[int, int]]
) -> None:
    stream, book = Stream(30, seed, noise=4), CallBook(["from-trunk"])
    events: list[CallEvent] = []
    for heard, missed in [*breaks, (len(stream.events), 0)]:
        parser = Parser()
        shown = BANNER + stream.listing("CoreShowChannels", "1")
        live = [packet for packet in parser.feed(shown) if packet.event == "CoreShowChannel"]
        events += catch_up(book, live, NOW)
        for packet in parser.feed(stream.take(heard)):
            events += book.apply(packet, NOW)
        if half := stream.take(1):
            list(parser.feed(half[: len(half) // 2]))
            stream.take(missed)
    events += catch_up(book, [], NOW)
    assert book.calls == {}
    counts = Counter((one.call.id, one.kind) for one in events)
    begun = {id for id, kind in counts if kind == "started"}
    assert begun == {id for id, kind in counts if kind == "ended"}
    assert {n for (_, kind), n in counts.items() if kind in ("started", "answered", "ended")} <= {1}


def told_of(told: list[Any], event: str) -> set[str]:
    return {one["call_id"] for one in told if one["event"] == event}


def test_while_the_bus_takes_nothing_the_exchange_is_read_and_not_called_dead(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exchange does not wait for whoever does not read: what the bus does not take is in memory
    first, then in a file, and goes out in order."""
    stream = Stream(2_500, noise=0)
    exchange = PouringExchange(stream)

    async def work() -> None:
        async with at_bus(bus) as client:
            bus.silent = True
            live = tmp_path / "live"
            async with listening(exchange, client, tmp_path, live_calls_file=live) as connector:
                await exchange.done.wait()
                unsent = connector._hearing.unsent
                await until(lambda: unsent.waiting > 4 * stream.calls)
                assert len(unsent._memory) <= MEMORY_MAX < unsent.waiting
                assert connector.waiting() == unsent.waiting
                bus.silent = False
                client._session.reconnect()  # greet again, as after a lost router
                await until(lambda: len(told_of(bus.bodies(TYPE), "ended")) == stream.calls)
                await until(lambda: not unsent.waiting)
                assert exchange.logins == 1
                assert (tmp_path / "live.unsent").stat().st_size == 0

    asyncio.run(work())
    told = [(one["call_id"], one["event"]) for one in bus.bodies(TYPE)]
    for call in {id for id, _ in told}:
        kinds = [kind for id, kind in told if id == call]
        assert (kinds[0], kinds[-1]) == ("started", "ended")
    assert "Unable to complete" not in caplog.text


def test_what_happens_while_it_finds_out_is_held_within_a_limit(bus: Bus, tmp_path: Path) -> None:
    """The bus takes nothing, and the connector has just come back to an exchange full of calls."""
    stream = Stream(5_000, noise=0)
    stream.take(10_000)
    exchange = PouringExchange(stream)

    async def work() -> None:
        async with at_bus(bus) as client:
            bus.silent = True
            async with listening(exchange, client, tmp_path) as connector:
                outbox = connector._hearing.outbox
                pouring = asyncio.create_task(pour(outbox))
                await until(lambda: exchange.logins and outbox._queue.full())
                await asyncio.sleep(1.0)
                packets = sum(type(one) is Packet for one in gc.get_objects())
                assert packets < HELD_MAX
                await stop(pouring)

    asyncio.run(work())


def test_draining_waits_for_what_is_there_and_not_for_what_comes(bus: Bus) -> None:
    async def work() -> None:
        async with at_bus(bus) as client:
            outbox = Outbox(client, 100)
            tasks = [asyncio.create_task(one) for one in (outbox.run(), pour(outbox))]
            async with asyncio.timeout(10):
                for _ in range(20):
                    await asyncio.sleep(0.001)
                    await outbox.drain()
            await stop(*tasks)
        assert len(bus.accepted) > 100

    asyncio.run(work())
