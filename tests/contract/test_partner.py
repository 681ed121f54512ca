"""What a failure of a partner says about the work: not begun, or nobody knows."""

import asyncio
import contextlib

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.breaker import BreakerSettings
from connectors.runtime.partner.partner import Partner, PartnerSettings, Untouched
from proto.client import Retry
from tests.ports import free_port


async def _answer(request: Request) -> Response:
    status = int(request.path_params["status"])
    if status == 0:
        await asyncio.sleep(1)
    return Response(status_code=status or 200)


async def _failure(status: int | None) -> Retry:
    """Return how a request fails that is answered by a status: 0 too late, None by nobody."""
    port = free_port()
    partner = Partner("test", PartnerSettings(f"http://127.0.0.1:{port}", timeout_s=0.2))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(partner.close)
        if status is not None:
            app = Starlette(routes=[Route("/{status}", _answer, methods=["POST"])])
            server = HttpServer(app, bind(f"127.0.0.1:{port}", "test"))
            stack.push_async_callback(server.stop)
            await server.start()
        with pytest.raises(Retry) as failed:
            await partner.send("POST", f"/{status}", b"", "key")
    return failed.value


@pytest.mark.parametrize("status", [429, 503])
def test_a_partner_that_cannot_serve_now_has_not_begun(status: int) -> None:
    assert isinstance(asyncio.run(_failure(status)), Untouched)


@pytest.mark.parametrize("status", [0, 302, 401, 500, 502, 504])
def test_of_any_other_failure_nobody_knows(status: int) -> None:
    assert not isinstance(asyncio.run(_failure(status)), Untouched)


def test_where_nobody_listens_nothing_has_begun() -> None:
    assert isinstance(asyncio.run(_failure(None)), Untouched)


def test_a_partner_that_is_left_alone_has_not_begun() -> None:
    async def run() -> Retry:
        breaker = BreakerSettings(failures_max=1)
        settings = PartnerSettings(f"http://127.0.0.1:{free_port()}", breaker=breaker)
        partner = Partner("test", settings)
        try:
            for _ in range(2):
                with pytest.raises(Retry) as failed:
                    await partner.send("POST", "/", b"", "key")
            assert partner.tally.requests == 1
            return failed.value
        finally:
            await partner.close()

    assert isinstance(asyncio.run(run()), Untouched)
