"""The connector of the ambulance between a real router and a partner that says what it should."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.smp import SmpConnector
from connectors.partners.smp.connector import SmpSettings
from connectors.runtime.bus.intake import Intake
from connectors.runtime.door.serving import HttpServer, bind
from proto.client import BusClient
from proto.message import Message, Priority
from tests.integration.bus import RouterProcess
from tests.ports import free_port

TAKEN = b'{"outcome": "created", "call_id": "1"}'
# What nginx says of an address that it does not know.
PAGE = b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body></body>\r\n</html>\r\n"
METHODS = ["GET", "POST", "PUT"]


def taken() -> Response:
    """Return the answer of an ambulance system that takes what it is given."""
    return Response(TAKEN, media_type="application/json")


def page(status: int = 404) -> Response:
    """Return a gateway's page."""
    return Response(PAGE, status, media_type="text/html")


@dataclass
class Asked:
    """One request as the partner saw it."""

    path: str
    body: bytes
    at: float
    headers: dict[str, str]


@dataclass
class Side:
    """The partner: keeps what it is asked, and answers what `say` returns."""

    say: Callable[[Asked], Response] = lambda _: taken()
    asked: list[Asked] = field(default_factory=list)
    raw_heads: list[list[tuple[str, str]]] = field(default_factory=list)  # as they came

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        headers = dict(request.headers)
        self.raw_heads.append([(a.decode(), b.decode()) for a, b in request.headers.raw])
        body = await request.body()
        self.asked.append(Asked(request.url.path, body, time.monotonic(), headers))
        return self.say(self.asked[-1])

    def bodies(self) -> list[bytes]:
        """Return the bodies of all requests, in order."""
        return [one.body for one in self.asked]

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Answer at the URL that is yielded."""
        app = Starlette(routes=[Route("/{path:path}", self.answer, methods=METHODS)])
        port = free_port()
        server = HttpServer(app, bind(f"127.0.0.1:{port}", "test"))
        await server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await server.stop()


class House:
    """A router, the connector, and somebody who publishes."""

    def __init__(self, router: RouterProcess, connector: SmpConnector, bus: BusClient) -> None:
        self.router = router
        self.connector = connector
        self.bus = bus

    async def bring(self, name: str, priority: Priority = Priority.ROUTINE) -> None:
        """Publish a card whose body is `name`; each is a subject of its own."""
        await self.bus.publish(card(name, priority))

    async def states(self) -> Counter[str]:
        """Return how many deliveries there are in each state."""
        answer = await asyncio.to_thread(self.router.ask, "queues")
        queue = next(one for one in answer["queues"] if one["destination"] == "smp")
        return Counter({word: queue[word] for word in ("settled", "dead", "retrying")})


def card(name: str, priority: Priority = Priority.ROUTINE) -> Message:
    """Return a message for the ambulance."""
    return Message(name, "incident.card.v1", "ward", name, 1_800_000_000_000, priority,
                   body=name.encode())  # fmt: skip


@contextlib.asynccontextmanager
async def house(
    side: Side,
    backoff: str = "first_ms = 200, longest_ms = 60000",
    credit: int = 32,
    **partner: Any,
) -> AsyncIterator[House]:
    """Run all of it; `partner` are settings of the partner, `backoff` those of the queue."""
    routes = (
        f"[destinations.smp]\nbackoff = {{ {backoff} }}\n"
        '[[routes]]\ntype = "*"\nsource = "ward"\nto = ["smp"]\n'
    )
    permissions = '[peers.smp]\nconsume = ["smp"]\n[peers.ward]\npublish = ["*"]\n'
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(side.listening())
        router = stack.enter_context(
            RouterProcess(peers=(), routes=routes, permissions=permissions, curve=False)
        )
        bus = BusClient(router.address, name="smp")
        ward = BusClient(router.address, name="ward")
        for client in (bus, ward):
            await client.start()
            stack.push_async_callback(client.close)
        told = {"partner": {"url": url, "system": "Скорая"} | partner, "credit": credit}
        connector = SmpConnector("smp", msgspec.convert(told, SmpSettings), bus)
        stack.push_async_callback(connector.close)
        intake = Intake.of(connector)
        running = asyncio.create_task(intake.run())
        stack.push_async_callback(asyncio.wait, [running])
        stack.push_async_callback(intake.stop, 0)
        yield House(router, connector, ward)
