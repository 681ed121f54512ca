"""Who is turned away at a door, and by which address: what a proxy says, and who may say it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.callers import Callers, Guard
from connectors.runtime.door.doorsettings import CallerSettings
from connectors.runtime.door.gate import HttpSettings, membership
from connectors.runtime.door.refusals import FREE, Refusals
from connectors.runtime.door.serving import HttpServer, allow_only, bind
from connectors.runtime.door.token import digest_of, new_token
from connectors.runtime.partner.http import HttpAnswer, HttpClient
from tests.ports import free_port
from tests.until import until

FAR = {"x-forwarded-for": "10.9.9.9"}
TOKEN = new_token()


async def _who(request: Request) -> Response:
    return Response(request.client.host if request.client else "")


@contextlib.asynccontextmanager
async def a_door(
    allow: list[str], refusals: Refusals | None = None, tokens: Path | None = None, **http: Any
) -> AsyncIterator[HttpClient]:
    port = free_port()
    callers = None
    if tokens is not None:
        callers = Callers({"who": CallerSettings(token_file=tokens)}, (), "test")
    guard = Guard(Starlette(routes=[Route("/", _who)]), callers, lambda _: "", ())
    app = allow_only(guard, allow)
    settings = msgspec.convert(http, HttpSettings)
    channel = bind(f"127.0.0.1:{port}", "test")
    server = HttpServer(app, channel, settings, membership(allow), refusals)
    await server.start()
    client = HttpClient(f"http://127.0.0.1:{port}")
    try:
        yield client
    finally:
        await client.close()
        await server.stop()


async def ask(client: HttpClient, headers: dict[str, str]) -> HttpAnswer:
    return await client.request("GET", "/", b"", headers)


def asked(allow: list[str], headers: dict[str, str], **http: Any) -> tuple[int, str]:
    async def whole() -> HttpAnswer:
        async with a_door(allow, **http) as client:
            return await ask(client, headers)

    answer = asyncio.run(whole())
    return answer.status, answer.body.decode() if answer.status == 200 else ""


@pytest.mark.fault("S12")
def test_allow_is_not_got_round_by_a_header() -> None:
    """With `allow` narrower than this machine any program on it got in by an X-Forwarded-For; it is
    believed of a proxy that is named, or where this machine may call anyway."""
    assert asked(["10.9.9.9/32"], FAR) == (403, "")
    assert asked(["10.9.9.9/32"], {}) == (403, "")
    assert asked(["10.9.9.9/32"], FAR, forwarded_from=["127.0.0.1"]) == (200, "10.9.9.9")
    assert asked(["10.9.9.9/32"], FAR, forwarded_from=["10.9.9.9"]) == (403, "")
    assert asked(["127.0.0.0/8", "10.9.9.9/32"], FAR) == (200, "10.9.9.9")
    assert asked(["127.0.0.0/8"], FAR) == (403, "")
    assert asked(["::1/128", "10.9.9.9/32"], FAR) == (403, "")


@pytest.mark.fault("S12")
def test_a_named_proxy_says_for_whom_it_asks() -> None:
    """Behind a proxy that sets no header the whole network was 127.0.0.1, which `allow` lets in."""
    everybody = ["0.0.0.0/0"]
    assert asked(everybody, {}, forwarded_from=["127.0.0.1"]) == (403, "")
    assert asked(everybody, {"x-forwarded-for": ", ,"}, forwarded_from=["127.0.0.1"]) == (403, "")
    assert asked(everybody, FAR, forwarded_from=["127.0.0.1"]) == (200, "10.9.9.9")
    assert asked(["127.0.0.0/8"], {}) == (200, "127.0.0.1")
    assert asked(everybody, {}, forwarded_from=["10.1.1.1"]) == (200, "127.0.0.1")


@pytest.mark.fault("S12")
def test_a_door_that_nobody_can_use_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A door for other machines that listens on this one alone has to be told of its proxy."""
    with caplog.at_level(logging.ERROR, "smpbus"):
        asked(["10.9.9.9/32"], FAR, forwarded_from=["127.0.0.1"])
        assert not caplog.messages
        asked(["10.9.9.9/32"], FAR)
    assert "http.forwarded_from" in caplog.text


@pytest.mark.fault("S18")
def test_bad_tokens_are_told_counted_and_slowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two thousand wrong tokens left no line and no figure, and were answered as fast as they came;
    who has a good token is served at once, from the same address too."""
    wrong = [{"authorization": f"Bearer {new_token()}"} for _ in range(FREE + 20)]

    (tmp_path / "tokens").write_text(digest_of(TOKEN), encoding="ascii")

    async def whole() -> Refusals:
        refusals = Refusals(window_s=2.0, slow_s=1.5)
        async with a_door(["127.0.0.0/8"], refusals, tmp_path / "tokens") as client:
            began = time.monotonic()
            guessing = [asyncio.create_task(ask(client, one)) for one in wrong[:-1]]
            # One that has waited already, so that the good one comes in the middle of the others.
            assert (await ask(client, wrong[-1])).status == 401
            good = await ask(client, {"authorization": f"Bearer {TOKEN}"})
            assert good.status == 200
            assert {one.status for one in await asyncio.gather(*guessing)} == {401}
            assert time.monotonic() - began >= 1.4
            await until(lambda: len(caplog.messages) >= 2, "the end of the minute")
        return refusals

    with caplog.at_level(logging.DEBUG, "smpbus"):
        refusals = asyncio.run(whole())
    assert refusals.counts == {"token": len(wrong)}
    assert len(caplog.messages) == 2
    assert all("127.0.0.1" in line for line in caplog.messages)
    assert str(len(wrong) - 1) in caplog.messages[1]
    sent = [TOKEN, *(one["authorization"].split()[1] for one in wrong)]
    assert not any(one in caplog.text for one in sent)


@pytest.mark.fault("S18")
def test_strangers_are_told_and_counted_by_address(caplog: pytest.LogCaptureFixture) -> None:
    """A 403 of `allow` was as silent; each address has a line of its own, and what a header holds
    in place of one has none of its words there."""

    async def whole() -> Refusals:
        refusals = Refusals(slow_s=0.0)
        async with a_door(["10.0.0.0/8"], refusals, forwarded_from=["127.0.0.1"]) as client:
            for host in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "Ivanov", "Petrov"):
                assert (await ask(client, {"x-forwarded-for": host})).status == 403
            assert (await ask(client, {})).status == 403
        return refusals

    with caplog.at_level(logging.DEBUG, "smpbus"):
        refusals = asyncio.run(whole())
    assert refusals.counts == {"address": 5, "no_header": 1}
    assert len(caplog.messages) == 4
    assert "Ivanov" not in caplog.text
