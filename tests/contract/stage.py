"""The ground of contract tests: a connector and a simulator talking real HTTP on loopback.

The bus is one end of the real wire: a ROUTER socket that welcomes, accepts, refuses or keeps
silent as the test says. The router itself is tested elsewhere; here it must be obedient.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from starlette.applications import Starlette

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import DoorSettings
from connectors.runtime.door.callers import Guard, behind_guard
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpAnswer, HttpClient
from proto import frames
from proto.client import BusClient, Consumer, Delivery
from proto.errors import Code
from proto.message import Message
from tests.ports import free_port
from tests.settings import settings_of
from tests.until import until


class Bus:
    """The obedient end of the wire. `silent`: accept nothing; `refuse`: with this code."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.silent = False
        self.refuse: Code | None = None
        self.retry_ms = 7000
        self.accepted: list[Message] = []
        self.heard: Counter[bytes] = Counter()  # frames, by their verb

    async def serve(self) -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as wire:
            wire.linger = 0
            wire.bind(self.address)
            while True:
                peer, verb, payload = await wire.recv_multipart()
                self.heard[verb] += 1
                for answer in self._answers(verb, payload):
                    await wire.send_multipart([peer, *answer])

    def _answers(self, verb: bytes, payload: bytes) -> Iterator[list[bytes]]:
        if verb == frames.HELLO:
            hello = msgspec.msgpack.decode(payload, type=frames.Hello)
            welcome = frames.Welcome(1, hello.name, "testbus", 1, 10**6, 4096, 1000)
            yield [frames.WELCOME, frames.encode(welcome)]
        elif verb == frames.PING:
            yield [frames.PONG, payload]
        elif verb == frames.PUBLISH and not self.silent:
            publish = msgspec.msgpack.decode(payload, type=frames.Publish)
            if self.refuse is not None:
                refusals = [
                    frames.Refusal(index, self.refuse, "no", self.retry_ms)
                    for index in range(len(publish.messages))
                ]
                yield [frames.REFUSED, frames.encode(frames.RefusedBatch(publish.batch, refusals))]
            else:
                self.accepted += publish.messages
                yield [frames.ACCEPTED, frames.encode(frames.Accepted([publish.batch]))]

    def bodies(self, type: str) -> list[Any]:
        """Return what was accepted of `type`, as plain JSON, in order, repeats too."""
        return [message.json() for message in self.accepted if message.type == type]


class Scene:
    """One connector and its partner's simulator, both answering HTTP."""

    def __init__(self, connector: Connector, http: HttpClient, simulator: HttpClient) -> None:
        self.connector = connector
        self.http = http
        self.simulator = simulator

    async def handle(self, message: Message, id: int = 1, attempt: int = 1) -> str | None:
        """Bring `message` as the runtime does. Raises what the connector raises."""
        consumer = Consumer(self.connector.bus._session, self.connector.destination, 1, {})
        return await self.connector.handle(Delivery(consumer, id, attempt, message))

    def reconnect(self) -> None:
        """Do as the client does after a lost router: greet again, repeat what is unaccepted."""
        self.connector.bus._session.reconnect()

    async def wait(self, ready: Callable[[Any], object]) -> Any:
        """Return the simulator's ledger as soon as `ready(ledger)` is true."""

        async def look() -> Any:
            ledger = await self.ledger()
            return (ledger,) if ready(ledger) else None

        return (await until(look, "the simulator"))[0]

    async def ledger(self) -> Any:
        return msgspec.json.decode((await self.simulator.request("GET", "/ledger")).body)

    async def faults(self, **switches: Any) -> None:
        answer = await self.simulator.request("POST", "/faults", msgspec.json.encode(switches))
        assert answer.status == 200

    async def send(self, method: str, path: str, body: Any) -> HttpAnswer:
        """Speak to the connector as its partner does."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.http.request(method, path, data)


@contextlib.asynccontextmanager
async def scene(
    bus: Bus,
    shape: type[Connector],
    create_app: Any,
    simulator_settings: Any,
    *,
    port: int | None = None,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """Set the stage: the bus, the connector's listener, the simulator (on `port`, if given)."""
    ports = [free_port(), port or free_port()]
    partner = {"url": f"http://127.0.0.1:{ports[1]}"} | settings.pop("partner", {})
    is_open = not {"callers", "token_file"} & settings.keys()
    table = {"listen": f"127.0.0.1:{ports[0]}", "open": is_open, "partner": partner, **settings}
    typed = settings_of(table, shape.Settings)
    told = msgspec.structs.replace(simulator_settings, connector_url=f"http://127.0.0.1:{ports[0]}")
    async with contextlib.AsyncExitStack() as stack:  # what is open is closed, however far we came
        server = asyncio.create_task(bus.serve())
        stack.push_async_callback(_end, server)
        client = BusClient(bus.address, name=shape.__name__.lower())
        stack.push_async_callback(client.close)
        await client.start()
        await client.wait_welcomed()
        connector = shape(client.name, typed, client)
        stack.push_async_callback(connector.close)
        door = connector.app() or Starlette()
        if is_open:  # no line in the log of each test
            door = Guard(door, None, lambda _: "", ())
        elif isinstance(typed, DoorSettings):
            door = behind_guard(door, connector, client.name, typed, Path("test")) or door
        listeners: list[HttpServer] = []
        stack.push_async_callback(_stop, listeners)
        for app, port in zip((door, create_app(told)), ports, strict=True):
            listeners.append(HttpServer(app, bind(f"127.0.0.1:{port}", "test")))
            await listeners[-1].start()
        http, simulator = (HttpClient(f"http://127.0.0.1:{port}") for port in ports)
        stack.push_async_callback(http.close)
        stack.push_async_callback(simulator.close)
        yield Scene(connector, http, simulator)


async def _stop(listeners: list[HttpServer]) -> None:
    await asyncio.gather(*(listener.stop() for listener in listeners))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
