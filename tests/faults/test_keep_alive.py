"""Connections that are closed in the very moment in which they are used again."""

import asyncio
from collections import Counter

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from connectors.runtime.door.gate import HttpSettings
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.runtime.partner.partner import Partner, PartnerSettings
from proto.client import Retry
from tests.faults.partnerhouse import Side
from tests.faults.rawserver import GOOD, Heard, raw
from tests.leap import LeapingClock, leaping
from tests.ports import free_port


async def _once_each(heard: Heard, writer: asyncio.StreamWriter) -> None:
    """Answer the first request of a connection, and close with the second in hand."""
    if heard.number == 1:
        writer.write(GOOD)
    else:
        writer.close()


async def _partner(url: str, **settings: object) -> Partner:
    return Partner("test", msgspec.convert({"url": url} | settings, PartnerSettings))


@pytest.mark.fault("A19")
def test_a_request_into_a_closing_connection_goes_again_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """38 of 120 requests to a server that closes idle connections after 5 s cost a second and an
    ОШИБКА; one that surely got no answer goes at once into the next connection."""

    async def act() -> None:
        async with raw(_once_each) as (url, heard):
            partner = await _partner(url)
            for number in range(10):
                answer = await partner.send("POST", "/", b"{}", f"key {number}")
                assert answer.status == 200
            assert partner.tally.failures.total() == 0
            keys = Counter(one.head.split(b"idempotency-key: ")[1].split(b"\r\n")[0]
                           for one in heard)  # fmt: skip
            assert len(keys) == 10
            assert max(keys.values()) == 2  # under the same key
            await partner.close()

    asyncio.run(act())
    assert not caplog.records


@pytest.mark.fault("A19")
def test_many_connections_that_close_at_once_are_all_passed() -> None:
    """Every idle connection of a server that restarts is closed, not only the first one tried."""
    closing = False

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if heard.number > 1 and closing:
            writer.close()
            return
        await asyncio.sleep(0.05)
        writer.write(GOOD)

    async def act() -> None:
        nonlocal closing
        async with raw(say) as (url, _):
            partner = await _partner(url)
            await asyncio.gather(*(partner.send("POST", "/", b"", f"{n}") for n in range(8)))
            closing = True
            answers = await asyncio.gather(
                *(partner.send("POST", "/", b"", f"again {n}") for n in range(8))
            )
            assert {one.status for one in answers} == {200}
            assert partner.tally.failures.total() == 0
            await partner.close()

    asyncio.run(act())


@pytest.mark.fault("A19")
def test_what_may_go_once_only_is_not_sent_again() -> None:
    """A partner that knows no idempotency key may have done it."""

    async def act() -> None:
        async with raw(_once_each) as (url, heard):
            partner = await _partner(url)
            await partner.send("POST", "/", b"", "1", once=True)
            with pytest.raises(Retry, match="broken"):
                await partner.send("POST", "/", b"", "2", once=True)
            assert len(heard) == 2
            await partner.close()

    asyncio.run(act())


@pytest.mark.fault("A19")
@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{"])
def test_a_fresh_connection_or_half_an_answer_is_no_such_case(first: bytes) -> None:
    """A partner that breaks off over a request is asked again by the policy, not at once."""

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if first and heard.number == 1 and heard.connection == 1:
            writer.write(GOOD)
            return
        writer.write(first)
        writer.close()

    async def act() -> None:
        async with raw(say) as (url, heard), HttpClient(url) as client:
            if first:
                await client.request("GET", "/", again=True)
                heard.clear()
            with pytest.raises(Unreachable):
                await client.request("GET", "/", again=True)
            assert len(heard) == 1

    asyncio.run(act())


@pytest.mark.fault("A19")
def test_an_idle_connection_is_given_up_before_common_servers_do_it() -> None:
    """Our limit was 5 s, as theirs; it is less at the client, more at our own servers, and both can
    be set."""

    async def act(idle_s: float) -> int:
        async def say(_: Heard, writer: asyncio.StreamWriter) -> None:
            writer.write(GOOD)

        async with raw(say) as (url, heard):
            partner = await _partner(url, idle_s=idle_s)
            for key in ("1", "2"):
                await partner.send("POST", "/", b"", key)
                await asyncio.sleep(0.3)
            await partner.close()
            return heard[-1].connection

    assert asyncio.run(act(0.1)) == 2
    assert asyncio.run(act(60)) == 1
    defaults = {field.name: field.default for field in msgspec.structs.fields(PartnerSettings)}
    assert defaults["idle_s"] < 5 < HttpSettings().idle_s


@pytest.mark.fault("A19")
def test_our_servers_keep_a_connection_as_long_as_they_are_told() -> None:
    """Uvicorn's own limit of 5 s is not ours."""

    async def act(clock: LeapingClock, keep_alive_s: float) -> bool:
        side = Side()
        port = free_port()

        served = Starlette(routes=[Route("/", side.answer, methods=["POST"])])
        server = HttpServer(
            served, bind(f"127.0.0.1:{port}", "test"), HttpSettings(idle_s=keep_alive_s)
        )
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        writer.write(request)
        await reader.readuntil(b"}")
        await clock.live_through(20.0)
        writer.write(request)
        again = await reader.read(100)
        writer.close()
        await server.stop()
        return bool(again)

    with leaping() as clock:
        assert asyncio.run(act(clock, 30.0))
        assert not asyncio.run(act(clock, 10.0))
