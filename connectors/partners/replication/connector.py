"""The connector that joins two buses: a peer of both, in one process, at the substation.

What the local bus brings is settled when it is on the other router's disk, and the other way round.
"""

import asyncio
from functools import partial
from typing import Annotated, Any, ClassVar, Final, cast

import msgspec

from connectors.partners.replication.link import Link, OtherBus, load_keys
from connectors.partners.replication.passing import SessionEnded, pass_on
from connectors.partners.replication.probing import probe
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen, Loaded
from connectors.runtime.bus.taking import ANY
from connectors.runtime.log import LOG
from proto.client import BusClient, Delivery, Retry, tell_granting
from proto.exits import StartError
from proto.keys import KeyFileError
from proto.note import coded
from proto.peer import Granting
from proto.wording import text

ENDED_PAUSE_S: Final = 0.2


class ReplicationSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.replication]. `destination` is the local queue of what goes to the other bus;
    `credit` holds for each direction: so many messages may be under way over the link."""

    partner: OtherBus
    listen: Listen = "127.0.0.1:7122"
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 128
    stop_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 3.0


class ReplicationConnector(Connector):
    """See the module; README.md has the routes, permissions and keys of both sides."""

    Settings: ClassVar = ReplicationSettings
    takes: ClassVar = {ANY: (bytes, "pass_out")}
    owns: ClassVar = ("_link",)
    settings: ReplicationSettings

    def __init__(self, name: str, settings: ReplicationSettings, bus: BusClient) -> None:
        super().__init__(name, settings, bus)
        other = settings.partner
        self._link = Link(other, self.partner.outage, self._bring, settings.credit, self._greeted)
        self._passed = {"out": 0, "home": 0}
        self._turned_back = {"out": 0, "home": 0}
        self._told: dict[str, str] = {}  # queue of a bus -> why we do not get it
        bus.on_granting = partial(self._tell_granting, bus, "")

    # -- the two ways ---------------------------------------------------------------------------

    async def pass_out(self, _: bytes, delivery: Delivery) -> str:
        """Publish at the other bus what the local one brings. Raises Retry or Reject."""
        while True:
            other = await self._link.bus()
            if other.bus == self.bus.bus:
                raise Retry(coded("replication.same_bus", bus=other.bus))
            try:
                return self._note("out", other, await pass_on(delivery.message, self.bus, other))
            except SessionEnded:  # the next one takes it: not an attempt of this delivery
                await asyncio.sleep(ENDED_PAUSE_S)

    async def _bring(self, delivery: Delivery) -> str:
        """Publish here what the other bus brings. Raises Retry or Reject."""
        other = await self._link.bus()
        try:
            return self._note("home", self.bus, await pass_on(delivery.message, other, self.bus))
        except SessionEnded:
            raise Retry(coded("replication.ended")) from None

    def _note(self, way: str, there: BusClient, passed: bool) -> str:
        (self._passed if passed else self._turned_back)[way] += 1
        return coded("replication.passed" if passed else "replication.home", bus=there.bus)

    # -- the session at the other bus -----------------------------------------------------------

    async def stay(self) -> None:
        """Hold the session at the other bus. Raises StartError when both ends are one bus."""
        await self._link.run(self.settings.stop_s, self._prepare)

    def _prepare(self, other: BusClient) -> None:
        other.on_granting = partial(self._tell_granting, other, f"{other.address} ")

    def _greeted(self, other: BusClient) -> None:
        if other.bus == self.bus.bus:
            raise StartError(text("note.replication.same_bus", bus=other.bus))

    def _tell_granting(self, bus: BusClient, where: str, granting: Granting) -> None:
        """A router does not give us a queue, or gives it again: say so once. The client asks again
        by itself."""
        queue = f"{where}{granting.destination}"
        if granting.code and self._told.get(queue) != granting.code:
            LOG.error(text("replication.no_queue", queue=queue, code=granting.code))
        elif not granting.code:
            tell_granting(bus, granting)
        self._told[queue] = granting.code

    def not_given(self) -> dict[str, str]:
        """Return the queues that either bus does not give us."""
        return super().not_given() | self._link.not_given()

    # -- what it tells --------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Return whether the link is up, and what passed it since the start of this process."""
        return {"up": self._link.up, "passed": self._passed, "turned_back": self._turned_back}

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]]:
        """See Connector: both buses give us our queues, and they are two."""
        settings = cast(ReplicationSettings, loaded.settings)
        other = settings.partner
        key, server_key = load_keys(other)
        try:
            near = BusClient(
                loaded.address, name=name, key=loaded.key, server_key=loaded.server_key
            )
        except KeyFileError as error:
            return [(False, str(error))]
        far = BusClient(other.url, name=other.name, key=key, server_key=server_key)
        return await probe(near, settings.destination or name, far, other.queue)
