"""The base of every connector: what the bus brings, what the partner brings, and the partner."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import isawaitable
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from connectors.runtime.access import Accesses, NoAccesses
from connectors.runtime.bus import taking
from connectors.runtime.bus.ingress import Ingress
from connectors.runtime.bus.settings import (
    ConnectorSettings,
    DoorSettings,
    Loaded,
    SessionSettings,
)
from connectors.runtime.bus.taking import Takes
from connectors.runtime.door.door import Door
from connectors.runtime.door.refusals import Refusals
from connectors.runtime.door.served import Serves, routes_of
from connectors.runtime.partner.partner import Partner
from connectors.runtime.statefile import Alarm
from proto.client import BusClient, Delivery, Retry
from proto.message import Message

FIGURES = "/figures"


class Connector:
    """Joins one partner to the bus; the partner's protocol ends inside it.

    A subclass declares as data what it takes, answers and serves, and has the methods that this
    data names: `await bring(body, delivery)` returns the note of the ack, or raises Retry or Reject
    (it may be called twice for one delivery: `delivery.key` is the same then, and the partner is to
    be given it); `await worker(question)` returns the answer; `result(value, came)` returns the
    messages of a request. The runtime gives the rest: decoding and its refusal, the session and its
    reconnects, credit, pausing while the partner is down, the door, the page of figures, stopping.
    """

    Settings: ClassVar[type[SessionSettings]] = ConnectorSettings
    takes: ClassVar[Takes] = {}
    answers: ClassVar[Takes] = {}
    serves: ClassVar[Serves] = {}
    # What it tells the bus, for `--check`.
    publishes: ClassVar[Sequence[str]] = ()
    # Queues that it empties beside its own, and what it takes from them.
    other_queues: ClassVar[Mapping[str, Takes]] = {}
    # Attributes that are closed at the end, in this order; None where there is none.
    owns: ClassVar[Sequence[str]] = ()
    # Attributes that are files of its own: one that cannot be used is told to operators.
    keeps: ClassVar[Sequence[str]] = ()
    # Methods that run as long as the connector does, and never end by themselves.
    runs: ClassVar[Sequence[str]] = ()
    poll_s: float | None = None
    # Who is asked in the end, in the sentence of a question that is not answered.
    asked_is: ClassVar[str] = "the partner"
    # False: what `handle` does needs no partner, and goes on while the partner is away.
    waits_for_partner: ClassVar[bool] = True
    # What a caller needs for the paths under each prefix: names for `scopes` in settings.
    door_scopes: ClassVar[Mapping[str, str]] = {FIGURES: "figures"}
    # Paths that only describe the door, for everybody whom `allow` lets in.
    door_public: ClassVar[frozenset[str]] = frozenset()
    # True: every path of `app` asks by itself who comes, for each client's own quota and rows.
    knows_callers: ClassVar[bool] = False
    partner: Partner  # where the settings have one

    def __init_subclass__(cls, **given: Any) -> None:
        """Raises TypeError for a declaration that names a method which is not there."""
        super().__init_subclass__(**given)
        taking.check(cls, cls.takes, "takes")
        taking.check(cls, cls.answers, "answers")

    def __init__(self, name: str, settings: SessionSettings, bus: BusClient) -> None:
        """Raises StartError."""
        self.name = name
        self.settings = settings
        self.bus = bus
        if (partner := getattr(settings, "partner", None)) is not None:
            self.partner = Partner(name, partner)
        self.ingress = Ingress(bus, settings.accept_timeout_s, settings.retry_after_s)
        self.refusals = Refusals()
        self.accesses: Accesses = NoAccesses()
        if self.answers:
            bus.serve(self.destination, self.answer)

    @property
    def destination(self) -> str:
        """The queue this connector empties."""
        return self.settings.destination or self.name

    @property
    def system(self) -> str:
        """What the partner is called where people read of it."""
        partner = getattr(self.settings, "partner", None)
        return getattr(partner, "system", "") or self.name

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]] | None:
        """Return what `--check` finds at the partner, each good or not, with a sentence; None:
        whether its address takes a connection says enough. Raises StartError."""
        return None

    # -- from the bus ---------------------------------------------------------------------------

    @classmethod
    def taken_with(cls, settings: SessionSettings) -> Takes:
        """Return what is taken from the own queue with these settings."""
        return cls.takes

    async def handle(self, delivery: Delivery) -> str | None:
        """Bring one delivery to the partner; return the note of the ack. Raises Retry or Reject."""
        takes = self.taken_with(self.settings)
        try:
            return await taking.take(self, takes, delivery.message, delivery)
        except Retry as retry:
            if self.settings.repeat_after_s is None:
                raise
            raise Retry(str(retry), self._again_s(retry.after_s, delivery.attempt)) from None

    def _again_s(self, wished_s: float | None, attempt: int) -> float:
        """Return when to try again, if the settings and not the queue's backoff say so."""
        first_s = self.settings.repeat_after_s or 0.0
        longest_s = max(self.settings.repeat_after_max_s, first_s)
        own_s = min(first_s * 2.0 ** min(attempt - 1, 20), longest_s)
        return min(max(wished_s or 0.0, own_s), longest_s)

    async def answer(self, message: Message) -> dict[str, Any]:
        """Answer a question. Raises RequestFailed."""
        return await taking.answer(self, self.answers, message, self.asked_is)

    # -- from the partner -----------------------------------------------------------------------

    @cached_property
    def door(self) -> Door:
        """What makes messages of requests. Only of a connector that is called."""
        return Door(
            self.ingress,
            system=self.system,
            bytes_max=self.settings.body_bytes_max,  # type: ignore[attr-defined]
            answer=self.reply,
            subject=self.subject,
        )

    def reply(self, status: int, about: str, sentence: str) -> bytes:
        """Return the body of the answer to a request about `about`, as the contract has it."""
        return msgspec.json.encode({"code": status, "sentence": sentence})

    def subject(self, about: str) -> str:
        """Return the subject of what concerns the parameter of a path."""
        return about

    def routes(self) -> Sequence[BaseRoute]:
        """Return what the door has beyond what `serves` declares."""
        return ()

    def app(self) -> ASGIApp | None:
        """Return what answers HTTP requests, if we can be called at all."""
        if not isinstance(self.settings, DoorSettings):
            return None
        routes = [*routes_of(self, self.serves), *self.routes()]
        if FIGURES in self.door_scopes and not self.knows_callers:
            routes.append(Route(FIGURES, self._show_figures))
        return Starlette(routes=routes)

    async def _show_figures(self, _: Request) -> Response:
        return Response(msgspec.json.encode(self.figures()), media_type="application/json")

    async def poll(self) -> None:
        """Ask the partner for news; called every `poll_s` seconds when that is set."""

    async def stay(self) -> None:
        """Hold a connection of our own to the partner; runs as long as the connector does."""
        loops = (attrgetter(name)(self)() for name in self.runs)
        works = [asyncio.ensure_future(one) for one in (asyncio.Event().wait(), *loops)]
        try:
            await asyncio.gather(*works)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    # -- what it tells, keeps and lets go -------------------------------------------------------

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
        return [attrgetter(name)(self) for name in self.keeps]

    def partners(self) -> list[Partner]:
        """Return the systems that are asked, for operators: the first one is the partner."""
        return [self.partner] if hasattr(self, "partner") else []

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
        """Let go of the partner, and of what it owns."""
        self.ingress.close()
        for name in ("partner", "accesses", *self.owns):
            part = getattr(self, name, None)
            if part is not None and isawaitable(closing := part.close()):
                await closing
        await asyncio.sleep(0)
