"""The HTTP client against answers that are more than it asked for."""

import asyncio
import gzip

import pytest
from httpcore._backends.anyio import AnyIOStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpClient, Unreachable
from tests.ports import free_port

LIMIT = 10_000


async def _plain(request: Request) -> Response:
    return Response(b"x" * int(request.path_params["size"]))


async def _packed(request: Request) -> Response:
    body = gzip.compress(b"x" * int(request.path_params["size"]))
    return Response(body, headers={"content-encoding": "gzip"})


async def _ask(path: str) -> bytes:
    port = free_port()
    routes = [Route("/plain/{size}", _plain), Route("/packed/{size}", _packed)]
    server = HttpServer(Starlette(routes=routes), bind(f"127.0.0.1:{port}", "test"))
    await server.start()
    try:
        async with HttpClient(f"http://127.0.0.1:{port}", answer_bytes_max=LIMIT) as client:
            return (await client.request("GET", path)).body
    finally:
        await server.stop()


@pytest.mark.parametrize("kind", ["plain", "packed"])
def test_an_answer_is_read_up_to_its_limit_unpacked(kind: str) -> None:
    assert asyncio.run(_ask(f"/{kind}/{LIMIT}")) == b"x" * LIMIT
    with pytest.raises(Unreachable) as refused:
        asyncio.run(_ask(f"/{kind}/{LIMIT + 1}"))
    assert refused.value.kind == "too long"


def test_a_connection_that_closes_while_it_is_used_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def closed(*_: object, **__: object) -> None:
        raise RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        )

    monkeypatch.setattr(AnyIOStream, "write", closed)
    with pytest.raises(Unreachable) as refused:
        asyncio.run(_ask("/plain/1"))
    assert refused.value.kind == "broken"


def test_a_mistake_of_ours_is_no_silence_of_the_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mistaken(*_: object, **__: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(AnyIOStream, "write", mistaken)
    with pytest.raises(RuntimeError, match="something else"):
        asyncio.run(_ask("/plain/1"))
