"""One row of the fault matrix at work: the connector's own process code, its partner's simulator
behind a TLS line, and attempts that are watched from outside."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.process import _run
from connectors.runtime.bus.settings import Loaded, LogSettings
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpAnswer, HttpClient
from connectors.runtime.partner.quota import Quota
from connectors.services.nsi import NsiClient, NsiSettings
from connectors.simulators.kit.simulation import SimulatorSettings
from proto.client import BusClient, Delivery, Reject, Retry
from proto.errors import RequestFailed
from proto.message import Message
from tests.contract.authority import Authority, serving
from tests.contract.hub import Hub
from tests.contract.line import Line
from tests.contract.rows import LIST, Row, worker_of
from tests.ports import free_port
from tests.settings import settings_of
from tests.until import until

TIMEOUT_S = 0.7
PACE_S = 0.02  # between two tries
LIVES_S = 600.0  # at most, what a partner does of its own accord
SOUND = {"fail": 0.0, "refuse": 0.0, "delay_s": 0.0, "down": False, "spoil": ""}


@dataclass
class Attempt:
    """What came of one thing that was brought: why it failed each time, and how it ended."""

    failures: list[str] = field(default_factory=list)
    end: str = ""  # "settled" or "dead"


class Stand:
    """A row that is at work."""

    def __init__(self, row: Row, hub: Hub, folder: Path, region: Authority) -> None:
        self.row = row
        self.hub = hub
        self.attempts: dict[str, Attempt] = {}  # by id of the message
        self.connector: Connector | None = None
        self._folder = folder
        self._region = region
        self._good = serving(region.issue(f"{row.name}-server"), region)
        self._bad = serving(Authority(folder / "other", "other").issue(f"{row.name}-bad"))
        self._us = region.issue(f"{row.name}-client")
        door, pages = free_port(), free_port()
        self._partner_port = free_port() if row.name == "ats" else pages
        self.line = Line(self._partner_port, self._good)
        self._listen = f"127.0.0.1:{door}"
        self._pages = f"127.0.0.1:{pages}"
        self.door = HttpClient(f"http://{self._listen}")
        self.simulator = HttpClient(f"http://{self._pages}")

    # -- setting it up --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator["Stand"]:
        """Run the simulator, the line and the connector."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.door.close)
            stack.push_async_callback(self.simulator.close)
            server = HttpServer(self.row.create_app(self._told()), bind(self._pages, "test"))
            await server.start()
            stack.push_async_callback(server.stop)
            stack.push_async_callback(self.line.close)
            await self.line.set("open")
            if self.row.shape is not None:
                running = asyncio.create_task(self._run(self.row.shape))
                stack.push_async_callback(_end, running)
                await until(lambda: running.done() or self._is_connected())
                if running.done():
                    await running  # says why it has ended
            yield self

    def _is_connected(self) -> bool:
        return self.connector is not None and bool(self.connector.bus.connected)

    def _told(self) -> SimulatorSettings:
        where = f"http://{self._listen}"
        if self.row.name == "ats":
            where = f"tcp://127.0.0.1:{self._partner_port}"
        # The ambulance would begin to live each call; here it only takes what comes.
        where = "" if self.row.name == "smp" else where
        return SimulatorSettings(connector_url=where, pace_s=0.02, repeat_s=0.05, strict=False)

    def _settings(self, shape: type[Any]) -> Any:
        row = self.row
        table = {"listen": self._listen, "open": True, "stop_s": 0.0, **row.settings(self._folder)}
        scheme = "tls" if row.name == "ats" else "https"
        table["partner"] = {
            "url": f"{scheme}://127.0.0.1:{self.line.port}{row.path}",
            "system": row.system,
            "timeout_s": TIMEOUT_S,
            "connect_timeout_s": TIMEOUT_S,
            "breaker": {"failures_max": 2, "open_s": 0.05, "open_max_s": 0.1},
            "ca_file": self._region.ca_file,
            "client_certificate_file": self._us.certificate,
            "client_key_file": self._us.key,
            **table.get("partner", {}),
        }
        if row.kind == "client":
            del table["listen"], table["open"], table["stop_s"]
        return settings_of(table, shape)

    async def _run(self, shape: type[Connector]) -> None:
        loaded = Loaded(
            self._folder, self._settings(shape.Settings), self.hub.address, None, None,
            LogSettings(),
        )  # fmt: skip
        await _run(self.row.name, self._watched(shape), loaded)

    def _watched(self, shape: type[Connector]) -> type[Connector]:
        stand = self

        class Watched(shape):  # type: ignore[misc, valid-type]
            """The connector itself; what its attempts come to is written down."""

            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                stand.connector = self

            async def handle(self, delivery: Delivery) -> Any:
                attempt = stand.attempts[delivery.message.id]
                try:
                    note = await super().handle(delivery)
                except (Retry, Reject) as error:
                    attempt.failures.append(str(error))
                    attempt.end = "dead" if isinstance(error, Reject) else ""
                    raise
                attempt.end = "settled"
                return note

        return Watched

    def is_well(self) -> bool:
        """Whether the connector sees no outage of its partner, and no load is broken off."""
        connector: Any = self.connector
        if connector is None:
            return True
        broken_off = self.row.kind == "load" and connector._told
        return not (connector.partner.outage.count or broken_off)

    # -- faults ---------------------------------------------------------------------------------

    async def faults(self, **switches: Any) -> None:
        """Set the simulator's switches, all others off."""
        answer = await self._post("/faults", SOUND | switches)
        assert answer.status == 200

    async def drive(self, **order: Any) -> None:
        """Tell the simulator how to behave."""
        assert (await self._post("/drive", order)).status in (202, 204)

    async def _post(self, path: str, body: Any) -> HttpAnswer:
        return await self.simulator.request("POST", path, msgspec.json.encode(body))

    async def show_bad_certificate(self) -> None:
        """Let somebody answer in the partner's place."""
        await self.line.set("open", self._bad)

    async def mend(self, *, line: bool = True) -> None:
        """End every fault, that of the line too."""
        await self.faults()
        if line:
            await self.line.set("open", self._good)

    # -- what is brought ------------------------------------------------------------------------

    async def bring(self, number: int) -> Attempt:
        """Begin to bring thing `number`."""
        attempt = Attempt()
        if self.row.kind == "delivery":
            message = self._made(number)
            self.attempts[message.id] = attempt
            await self._sender.publish(message)
            return attempt
        ask = {"question": self._question, "load": self._load, "client": self._list}[self.row.kind]
        asking = asyncio.create_task(ask(number, attempt))

        def ended(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()):
                attempt.end = f"broken: {type(error).__name__}: {error}"

        asking.add_done_callback(ended)
        return attempt

    def _made(self, number: int) -> Message:
        assert self.row.bring is not None
        return msgspec.structs.replace(self.row.bring(number), source=self._sender.name)

    @property
    def _sender(self) -> BusClient:
        return self.hub.senders[self.row.name]

    async def _question(self, number: int, attempt: Attempt) -> None:
        """Ask over the bus until it is answered."""
        while True:
            question = self._made(number)
            try:
                reply = await self._sender.request(self.row.name, question, timeout_s=5.0)
            except RequestFailed as failed:
                attempt.failures.append(failed.sentence)
                await asyncio.sleep(PACE_S)
                continue
            told = msgspec.json.decode(reply.body)
            assert told.get("outcome") == "found" or told["worker"]["id"] == worker_of(number)["id"]
            attempt.end = "settled"
            return

    async def _load(self, number: int, attempt: Attempt) -> None:
        """Wait until the bus has heard of a worker that came meanwhile."""
        worker = worker_of(number)
        heard: list[Any] = self.hub.heard[self.row.name]
        while not any(one.json()["id"] == worker["id"] for one in heard):
            if why := self.connector._told:  # type: ignore[union-attr]
                attempt.failures.append(why)
            await asyncio.sleep(PACE_S)
        attempt.end = "settled"

    async def _list(self, _: int, attempt: Attempt) -> None:
        """Ask НСИ for a whole list until it has come."""
        client = NsiClient(self._settings(NsiSettings), Quota(100_000, 5000))
        try:
            while not attempt.end:
                try:
                    assert (await client.code_list(LIST)).name_of("98")
                    attempt.end = "settled"
                except (Retry, Reject) as error:
                    attempt.failures.append(str(error))
                    await asyncio.sleep(PACE_S)
        finally:
            await client.close()

    async def ledger(self) -> Any:
        """Return what the partner tells of itself."""
        return msgspec.json.decode((await self.simulator.request("GET", "/ledger")).body)

    async def applied(self) -> int:
        """Return how many things were done at the partner, when it has nothing more to do."""

        async def at_rest() -> Any:
            ledger = await self.ledger()
            return None if ledger.get("living") else ledger

        ledger = await until(at_rest, "the partner to have nothing more to do", LIVES_S)
        return len(ledger.get("entries", ledger.get("dialled", ())))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
