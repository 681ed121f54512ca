"""What a partner answers is bounded in bytes and in time."""

import asyncio
import gzip
import resource
import tracemalloc
import zlib

import msgspec
import pytest

from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.runtime.partner.partner import Partner, PartnerSettings
from proto.client import Retry
from tests.faults.rawserver import Heard, raw

MIB = 1024 * 1024
CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.fault("D11")
def test_an_answer_without_end_takes_no_more_than_its_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A partner that answered a gigabyte took a connector to 589 MiB; eight of them at a time stay
    within eight times the limit, and the line names the setting."""

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(ENDLESS)
        for _ in range(16_384):  # a gigabyte
            writer.write(CHUNK)
            await writer.drain()

    async def act() -> int:
        async with raw(say) as (url, _):
            settings = msgspec.convert({"url": url, "answer_bytes_max": MIB}, PartnerSettings)
            partner = Partner("test", settings)
            tracemalloc.start()
            asks = [partner.send("POST", "/", b"", f"{n}") for n in range(8)]
            ends = await asyncio.gather(*asks, return_exceptions=True)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert all(isinstance(end, Retry) for end in ends)
            assert partner.tally.failures == {"too_long": 8}
            await partner.close()
            return peak

    assert asyncio.run(act()) < 24 * MIB
    assert "answer_bytes_max" in caplog.text


@pytest.mark.fault("D11")
@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked(packing: str) -> None:
    """Sibling: half a megabyte may be half a gigabyte of blanks."""
    press = zlib.compressobj(9, wbits=31 if packing == "gzip" else 15)
    packed = b"".join(press.compress(b" " * MIB) for _ in range(64)) + press.flush()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: {packing}\r\ncontent-length: {len(packed)}\r\n\r\n"
    )

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + packed)

    async def act() -> int:
        async with raw(say) as (url, _), HttpClient(url, answer_bytes_max=MIB) as client:
            tracemalloc.start()
            with pytest.raises(Unreachable) as refused:
                await client.request("GET", "/")
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert refused.value.kind == "too long"
            return peak

    assert asyncio.run(act()) < 8 * MIB


@pytest.mark.fault("D11")
@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, gzip", "x-unknown"])
def test_an_answer_packed_in_a_way_that_was_not_offered_is_none(packing: str) -> None:
    """We offer gzip, and nothing else has its limits checked."""

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: {packing}\r\ncontent-length: 2\r\n\r\n{{}}"
        writer.write(head.encode())

    assert _kind(say) == "broken"


@pytest.mark.fault("D11")
def test_a_packed_answer_that_ends_too_early_is_none() -> None:
    """Half of it reads well, and is half."""
    packed = gzip.compress(b'{"a": 1}' * 1000)[:-12]

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
        writer.write(head.encode() + packed)

    assert _kind(say) == "broken"


def _kind(say: object) -> str:
    async def act() -> str:
        async with raw(say) as (url, _), HttpClient(url) as client:  # type: ignore[arg-type]
            with pytest.raises(Unreachable) as refused:
                await client.request("GET", "/")
            return refused.value.kind

    return asyncio.run(act())


@pytest.mark.fault("D11")
@pytest.mark.parametrize("what", [ENDLESS + b"1\r\nx\r\n", b"HTTP/1.1 200 OK\r\nx-a: "])
def test_an_answer_that_drips_has_the_time_of_one_answer(what: bytes) -> None:
    """A byte now and then kept the read timeout from ever coming; the whole answer has its time."""

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(what)
        while not writer.is_closing():
            await asyncio.sleep(0.05)
            writer.write(b"1\r\nx\r\n" if what.startswith(ENDLESS) else b"x")
            await writer.drain()

    async def act() -> None:
        async with raw(say) as (url, _):
            told = {"url": url, "timeout_s": 0.4, "connect_timeout_s": 0.1}
            partner = Partner("test", msgspec.convert(told, PartnerSettings))
            async with asyncio.timeout(10):
                with pytest.raises(Retry, match="timeout"):
                    await partner.send("POST", "/", b"", "1")
            await partner.close()

    asyncio.run(act())


@pytest.mark.fault("D11")
def test_a_head_without_end_is_no_answer() -> None:
    """Sibling: a head of any length is bounded as well."""

    async def say(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(20_000):
            writer.write(b"x-%d: %s\r\n" % (number, b"y" * 1000))
            await writer.drain()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _kind(say) == "broken"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
