"""The base of every connector: what the bus brings, what the partner brings, and the partner."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.types import ASGIApp

from connectors.runtime.access import Accesses, NoAccesses
from connectors.runtime.bus.ingress import Ingress
from connectors.runtime.bus.settings import ConnectorSettings, Loaded
from connectors.runtime.door.refusals import Refusals
from connectors.runtime.partner.partner import Partner
from connectors.runtime.statefile import Alarm
from proto.client import BusClient, Delivery


class Connector:
    """Joins one partner to the bus; the partner's protocol ends inside it.

    A subclass names its `Settings` and writes `handle`, `app`, or both. The runtime gives the rest:
    the session and its reconnects, credit, pausing while the partner is down, stopping.
    """

    Settings: ClassVar[type[ConnectorSettings]] = ConnectorSettings
    poll_s: float | None = None
    # False: what `handle` does needs no partner, and goes on while the partner is away.
    waits_for_partner: ClassVar[bool] = True
    # What a caller of `app` needs for the paths under each prefix: names for `scopes` in settings.
    door_scopes: ClassVar[Mapping[str, str]] = {"/figures": "figures"}
    # Paths that only describe the door, for everybody whom `allow` lets in.
    door_public: ClassVar[frozenset[str]] = frozenset()
    # True: every path of `app` asks by itself who comes, for each client's own quota and rows.
    knows_callers: ClassVar[bool] = False

    def __init__(self, name: str, settings: ConnectorSettings, bus: BusClient) -> None:
        self.name = name
        self.settings = settings
        self.bus = bus
        self.partner = Partner(name, settings.partner)
        self.ingress = Ingress(bus, settings.accept_timeout_s, settings.retry_after_s)
        self.refusals = Refusals()
        self.accesses: Accesses = NoAccesses()

    @property
    def destination(self) -> str:
        """The queue this connector empties."""
        return self.settings.destination or self.name

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]] | None:
        """Return what `--check` finds at the partner, each good or not, with a sentence; None:
        whether its address takes a connection says enough. Raises StartError."""
        return None

    async def handle(self, delivery: Delivery) -> str | None:
        """Bring one delivery to the partner; return the note of the ack.

        Raises Retry or Reject. May be called twice for one delivery: `delivery.key` is the same
        then, and the partner is to be given it.
        """
        raise NotImplementedError

    def app(self) -> ASGIApp | None:
        """Return what answers the partner's HTTP requests, if it calls us at all."""
        return None

    async def poll(self) -> None:
        """Ask the partner for news; called every `poll_s` seconds when that is set."""

    async def stay(self) -> None:
        """Hold a connection of our own to the partner; runs as long as the connector does."""
        await asyncio.Event().wait()

    def figures(self) -> dict[str, Any]:
        """Return this connector's own counters (loads, documents), as JSON can hold them, without
        personal data and within a few kilobytes.

        They reach `smpbus partners --json` every few seconds; "lookup", the figures of a `Lookup`,
        is shown by `smpbus partners` and `smpbus status`, and is on the metrics page.
        """
        return {}

    def states(self) -> list[Alarm]:
        """Return the files that this connector keeps, for operators: one that cannot be used is
        reported."""
        return []

    def partners(self) -> list[Partner]:
        """Return the systems that are asked, for operators: the first one is the partner."""
        return [self.partner]

    def waiting(self) -> int:
        """Return how many messages wait to be accepted by the bus."""
        return self.ingress.waiting

    def not_given(self) -> dict[str, str]:
        """Return the queues that the router does not give us, each with the code that says why."""
        return self.bus.refused

    def set_aside(self) -> int:
        """Return how many messages were dropped for good since the start, each with a line."""
        return self.ingress.set_aside

    def forget(self) -> None:
        """Delete a step of what was kept for as long as `settings.retention` says; called once in a
        while, also when nothing comes. May raise StateAway."""

    async def close(self) -> None:
        """Let go of the partner."""
        self.ingress.close()
        await self.partner.close()
        await self.accesses.close()
        await asyncio.sleep(0)
