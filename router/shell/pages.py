"""The HTTP side: the Prometheus page, the health questions, and which partners answer.

/livez: does the loop complete durable turns; /readyz (and /healthz): would a message be accepted
now. A partner that is down never makes the router unhealthy: it would be restarted into the
outage. /partners tells of it, with 200 whatever it tells: "ok" says whether all that were asked
answer, "partners" has a row per connector.
"""

import asyncio
import contextlib
import socket as posix
import time
from collections.abc import Iterator
from typing import ClassVar, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from router.shell.pace import Pace
from router.shell.partners import all_well
from router.shell.report import Report
from router.shell.socket import bind_error

CONNECTIONS_MAX: Final = 64
FRESH_S: Final = 0.25  # the page of metrics is made so often
PATIENCE_S: Final = 5.0  # for a whole connection: whoever asks often asks anew
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the router has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Impatient(H11Protocol):
    """uvicorn's protocol, for few connections at a time, and briefly: no request may take its time
    to arrive, and no answer here takes any."""

    _open: ClassVar[int] = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        _Impatient._open += 1
        self._end = self.loop.call_later(PATIENCE_S, transport.abort)
        if _Impatient._open > CONNECTIONS_MAX:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end.cancel()
        _Impatient._open -= 1
        super().connection_lost(exc)


class Pages:
    """Serves the pages on a socket bound beforehand."""

    def __init__(self, report: Report, listener: posix.socket) -> None:
        self._report = report
        self._engine = report.engine
        self._page, self._made_at = b"", -FRESH_S
        self._listener = listener
        routes = [
            Route("/metrics", self._metrics),
            Route("/livez", self._live),
            Route("/readyz", self._ready),
            Route("/healthz", self._ready),
            Route("/partners", self._partners),
        ]
        self._pace = Pace()
        app = self._paced(Starlette(routes=routes))
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off",
            server_header=False, timeout_graceful_shutdown=1, http=_Impatient, ws="none",
        )  # fmt: skip
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        await self._task

    def _paced(self, app: ASGIApp) -> ASGIApp:
        """Return `app`, whose answers come at a pace: making and sending them delays messages."""

        async def paced(scope: Scope, receive: Receive, send: Send) -> None:
            await self._pace.turn()
            began = time.thread_time()
            await app(scope, receive, send)
            self._pace.took(time.thread_time() - began)

        return paced

    async def _metrics(self, _: Request) -> Response:
        now = time.monotonic()
        if now - self._made_at >= FRESH_S:
            self._page, self._made_at = self._report.metrics_page(), now
        return Response(self._page, headers={"content-type": METRICS_TYPE})

    async def _partners(self, _: Request) -> Response:
        partners = self._report.partners
        page = {"ok": all_well(partners.connectors()), "partners": partners.rows()}
        return Response(msgspec.json.encode(page), media_type="application/json")

    async def _live(self, _: Request) -> Response:
        return _verdict(self._engine.live())

    async def _ready(self, _: Request) -> Response:
        return _verdict(self._engine.live() | self._engine.ready())


def _verdict(checks: dict[str, bool]) -> Response:
    lines = [f"[{'+' if good else '-'}] {name}" for name, good in checks.items()]
    return PlainTextResponse("\n".join(lines) + "\n", 200 if all(checks.values()) else 503)


def listen(address: str, where: str) -> posix.socket:
    """Bind HOST:PORT. Raises StartError, which names the address, the file and the key."""
    host, _, port = address.rpartition(":")
    family = posix.AF_INET6 if ":" in host else posix.AF_INET
    listener = posix.socket(family, posix.SOCK_STREAM)
    try:
        listener.setsockopt(posix.SOL_SOCKET, posix.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(64)
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        number = error.errno if isinstance(error, OSError) else None
        raise bind_error(number, address, where) from None
    listener.setblocking(False)
    return listener
