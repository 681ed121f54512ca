"""The session at the other bus: opened, watched, and opened anew while the connector lives.

A link that is down is waited for by the client itself, however long; what is under way stays in it.
A bus that does not want us (an unknown key, no permissions, too many sessions) is asked again after
a pause: its administrator may be putting the key there just now.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from connectors.runtime.bus.intake import Intake
from connectors.runtime.bus.settings import DESTINATION
from connectors.runtime.log import LOG
from connectors.runtime.partner.breaker import Breaker, BreakerSettings
from connectors.runtime.partner.outage import Outage
from connectors.runtime.partner.partner import PartnerSettings
from proto.client import BusClient, Handler
from proto.configuration.declared import ReadFile, SecretFile
from proto.errors import BusError
from proto.exits import EX_NOPERM, StartError
from proto.keys import KeyFileError, KeyPair, load_public
from proto.message import Name
from proto.pattern import exactly
from proto.wording import text

WATCH_S: Final = 0.5
AWAY_AFTER_S: Final = 3.0
REFUSED_PAUSE_S: Final = 5.0


class OtherBus(PartnerSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.replication.partner]: where the other bus listens, who we are there (`name`, its
    `key`), the other router's public key, and the queue that is ours there ("" is our name)."""

    url: Annotated[str, msgspec.Meta(pattern=exactly(r"tcp://[^/]+:[0-9]{1,5}"))]
    name: Name
    key: SecretFile
    server_key: ReadFile
    destination: Annotated[str, msgspec.Meta(pattern=DESTINATION)] = ""

    @property
    def queue(self) -> str:
        """The destination that is brought home."""
        return self.destination or self.name


class Link:
    """One session at a time at the other bus, and the deliveries it brings."""

    def __init__(
        self,
        settings: OtherBus,
        outage: Outage,
        handle: Handler,
        credit: int,
        greeted: Callable[[BusClient], None],
    ) -> None:
        """`greeted` is called while the other bus is there; it may raise. Raises StartError."""
        self._settings = settings
        self._outage = outage
        self._handle = handle
        self._credit = credit
        self._greeted = greeted
        self._key, self._server_key = load_keys(settings)
        self._bus: BusClient | None = None
        self._intake: Intake | None = None
        self._open = asyncio.Event()
        self._unwelcome = ""

    @property
    def up(self) -> bool:
        """Whether the other bus is heard."""
        return self._bus is not None and self._bus.connected

    async def bus(self) -> BusClient:
        """Return the session, as soon as the other bus has welcomed it once."""
        while True:
            await self._open.wait()
            if self._bus is not None:
                return self._bus

    def not_given(self) -> dict[str, str]:
        """Return the queue that the other bus does not give us, with its code."""
        return {} if self._bus is None else self._bus.refused

    async def run(self, stop_s: float, prepare: Callable[[BusClient], None]) -> None:
        """Hold a session until cancelled; then let what it brought end within `stop_s`, and leave
        it open for what goes the other way. `prepare` sees each session before it begins."""
        settings = self._settings
        while True:
            self._bus = BusClient(
                settings.url, name=settings.name, key=self._key, server_key=self._server_key
            )
            prepare(self._bus)
            await self._bus.start()
            rested = Breaker(BreakerSettings())
            self._intake = Intake(self._bus, settings.queue, self._credit, self._handle, rested)
            try:
                await self._live(self._bus, self._intake)
            except BusError as error:
                self._tell_unwelcome(error)
            except asyncio.CancelledError:
                await self._intake.stop(stop_s)
                raise
            await self._intake.stop(0)
            await self.close()
            await asyncio.sleep(REFUSED_PAUSE_S)

    async def close(self) -> None:
        """End the session."""
        self._open.clear()
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    async def _live(self, bus: BusClient, intake: Intake) -> None:
        tasks = [asyncio.create_task(work) for work in (self._watch(bus), intake.run())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, bus: BusClient) -> None:
        """Tell once when the link is down, and once when it is up again. Raises BusError."""
        heard_s, tries = time.monotonic(), 0
        while True:
            bus.raise_if_dead()
            now = time.monotonic()
            if bus.connected:
                self._greeted(bus)
                self._tell_welcome()
                self._outage.recovered(now)
                heard_s, tries = now, bus.reconnects
                self._open.set()
            elif bus.reconnects > tries and now - heard_s >= AWAY_AFTER_S:
                tries = bus.reconnects
                self._outage.failed(now)
            await asyncio.sleep(WATCH_S)

    def _tell_unwelcome(self, error: BusError) -> None:
        if error.code != self._unwelcome:
            LOG.error(text("replication.unwelcome", **self._place(), reason=error.sentence))
        self._unwelcome = error.code

    def _tell_welcome(self) -> None:
        if self._unwelcome:
            LOG.info(text("replication.welcome", **self._place()))
        self._unwelcome = ""

    def _place(self) -> dict[str, str]:
        return {"url": self._settings.url, "name": self._settings.name}


def load_keys(settings: OtherBus) -> tuple[KeyPair, bytes]:
    """Return our key pair and the other router's public key. Raises StartError."""
    try:
        return KeyPair.load(settings.key), load_public(settings.server_key)
    except KeyFileError as error:
        raise StartError(str(error), EX_NOPERM) from None
