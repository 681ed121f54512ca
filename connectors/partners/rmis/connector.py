"""The connector of the hospitals' system: tickets, cards, beds and visits go there, what became of
them comes back, and questions about patients are answered.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, cast

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.rmis import contract
from connectors.partners.rmis.canonical import Canonical
from connectors.partners.rmis.changes import OUTSIDE, Reader
from connectors.partners.rmis.dialect import Dialect, Untold
from connectors.partners.rmis.memory import Memory
from connectors.partners.rmis.questions import Questions
from connectors.partners.rmis.riams import Riams, RiamsSettings
from connectors.partners.rmis.riams.probing import probe
from connectors.partners.rmis.search import PersonSearch
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import NotAccepted
from connectors.runtime.bus.settings import ConnectorSettings, Listen, Loaded
from connectors.runtime.door.body import decode_each
from connectors.runtime.door.claims import Doubts, Namespace
from connectors.runtime.door.door import Door, message_id
from connectors.runtime.log import LOG
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.statefile import Alarm
from connectors.runtime.words import reason_of
from connectors.services.lookup import Lookup, LookupSettings
from proto import catalogue, clinical, schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.message import UNREADABLE, Message, Priority
from proto.note import coded
from proto.retention import DAY_S
from proto.wording import text

Told = tuple[str, list[Message]]
Tell = Callable[[Delivery, Any], Awaitable[Told]]


class RmisSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.rmis]. Changes are asked for every `poll_s` seconds; a question is answered
    within `question_timeout_s`; `state_file` keeps numbers of calls and the cursor of changes. With
    `search`, who somebody is is asked at that service for persons, by SOAP."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7118"
    dialect: Literal["canonical", "riams"] = "canonical"
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 5.0
    question_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 2.0
    state_file: Path = Path("/var/lib/smpbus/rmis/numbers.db")
    lookup: LookupSettings = LookupSettings()
    riams: RiamsSettings = RiamsSettings()
    search: PartnerSettings | None = None


class RmisConnector(Connector):
    """See the module; the contract is `connectors.partners.rmis.contract`."""

    Settings: ClassVar[type[ConnectorSettings]] = RmisSettings
    door_scopes: ClassVar[Mapping[str, str]] = {"/rmis": "changes", "/figures": "figures"}
    settings: RmisSettings

    def __init__(self, name: str, settings: RmisSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self.poll_s = settings.poll_s
        self.memory = Memory(settings.state_file, settings.retention.hospital_days * DAY_S)
        self.lookup = Lookup(settings.lookup)
        self.dialect: Dialect = Canonical(self.partner)
        if settings.dialect == "riams":
            self.dialect = Riams(self.partner, settings.riams, self.memory)
        self.search = None if settings.search is None else PersonSearch(self.name, settings.search)
        file = settings.state_file
        self.doubts = Doubts(settings.partner.system or name)
        names = Namespace.load(file.with_name(f"{file.name}.key"))
        own = settings.dialect != "canonical"  # it tells what it saw itself, under ids of its own
        self._reader = Reader(self.name, self.memory, names, self.doubts, polls_itself=own)
        self._questions = Questions(
            self.dialect, self.lookup, settings.question_timeout_s, self.search
        )
        self._tells: Final[dict[str, Tell]] = {
            "call.ticket.v1": self._ticket,
            "call.status.v1": self._status,
            "call.card.v1": self._card,
            "hospital.book.v1": self._book,
            "hospital.cancel.v1": self._cancel,
            "hospital.arrival.v1": self._arrival,
            "visit.request.v1": self._visit,
        }
        bus.serve(self.destination, self._questions.answer)

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]] | None:
        """See Connector: with РИАМС, whether tables and services fit."""
        settings = cast(RmisSettings, loaded.settings)
        if settings.dialect != "riams":
            return None
        partner = Partner(name, settings.partner)
        try:
            return await probe(partner, settings.riams)
        finally:
            await partner.close()

    def partners(self) -> list[Partner]:
        """Return the hospitals' system, and the search service for persons if it is asked."""
        return [self.partner] if self.search is None else [self.partner, self.search.partner]

    def forget(self) -> None:
        """See Connector."""
        self.memory.forget()
        if isinstance(self.dialect, Riams):
            self.dialect.forget()

    async def close(self) -> None:
        """Let go of the partner, of the caches and of the file."""
        await super().close()
        if self.search is not None:
            await self.search.close()
        await self.lookup.close()
        self.memory.close()

    def figures(self) -> dict[str, Any]:
        """Return the counters of lookups, what is not confirmed yet, and words set aside."""
        count, oldest_s = self.memory.unconfirmed()
        waiting = {"count": count, "oldest_s": round(oldest_s)}
        told = {"lookup": self.lookup.figures(), "unconfirmed": waiting}
        return told | self.doubts.figures()

    def states(self) -> list[Alarm]:
        """Return the file of numbers."""
        return self.memory.states()

    # -- to the hospitals' system ---------------------------------------------------------------

    async def handle(self, delivery: Delivery) -> str | None:
        """Hand over what the ambulance tells; publish what was said to it. Raises Retry, Reject."""
        message = delivery.message
        tell = self._tells.get(message.type)
        if tell is None:
            raise Reject(coded("connector.no_type", type=message.type))
        try:
            typed: Any = catalogue.entry(message.type).read(message.body)
        except UNREADABLE:
            raise Reject(coded("connector.bad_body")) from None
        try:
            note, events = await tell(delivery, typed)
        except Untold:
            return coded("rmis.untold", system=self.settings.partner.system or self.name)
        if events:
            try:
                await self.ingress.publish(events)
            except NotAccepted as error:
                raise Retry(error.code, float(error.retry_after_s)) from None
        return note

    async def _ticket(self, delivery: Delivery, ticket: schemas.CallTicket) -> Told:
        self.memory.note_asked("ticket", ticket.id, ticket.id, delivery.message.subject)
        taken = await self.dialect.put_ticket(ticket, delivery.message.body, delivery.key)
        return self._taken(delivery, "ticket", ticket.id, ticket.version, taken)

    async def _status(self, delivery: Delivery, status: schemas.StatusEvent) -> Told:
        taken = await self.dialect.put_status(status, delivery.message.body, delivery.key)
        return _note(taken.number), []

    async def _card(self, delivery: Delivery, card: clinical.CallCard) -> Told:
        self.memory.note_asked("card", card.id, card.id, delivery.message.subject)
        taken = await self.dialect.put_card(card, delivery.message.body, delivery.key)
        return self._taken(delivery, "card", card.id, card.version, taken)

    def _taken(
        self,
        delivery: Delivery,
        kind: Literal["ticket", "card"],
        call: str,
        version: int,
        taken: contract.Taken,
    ) -> Told:
        self.memory.note_transfers([(call, kind, "accepted")])
        state = clinical.TransferState(
            event_id=f"{OUTSIDE}-{kind}-{call}-{version}-accepted",
            system=OUTSIDE,
            kind=kind,
            call_id=call,
            version=version,
            state="accepted",
            number=taken.number,
            at=datetime.now(UTC),
        )
        return _note(taken.number), [self._event("transfer.state.v1", delivery, state)]

    async def _book(self, delivery: Delivery, bed: clinical.BedRequest) -> Told:
        self.memory.note_asked("bed", bed.booking_id, bed.call_id, delivery.message.subject)
        booked = await self.dialect.book(bed, delivery.message.body, delivery.key)
        return self._bed(delivery, bed.booking_id, bed.call_id, booked)

    async def _cancel(self, delivery: Delivery, cancelled: clinical.BedCancel) -> Told:
        subject = delivery.message.subject
        self.memory.note_asked("bed", cancelled.booking_id, cancelled.call_id, subject)
        booked = await self.dialect.cancel(cancelled, delivery.message.body, delivery.key)
        # A bed that stays booked is news all the same: not the event that told of the booking.
        event = "kept" if booked.state == "booked" else booked.state
        return self._bed(delivery, cancelled.booking_id, cancelled.call_id, booked, event)

    def _bed(
        self,
        delivery: Delivery,
        booking: str,
        call: str,
        booked: contract.Booked,
        event: str = "",
    ) -> Told:
        state = clinical.BedState(
            event_id=f"{OUTSIDE}-bed-{booking}-{event or booked.state}",
            booking_id=booking,
            call_id=call,
            state=booked.state,
            number=booked.number,
            reason=booked.reason,
            at=datetime.now(UTC),
        )
        note = f"{booked.state} {booked.number or ''}".strip()
        return note, [self._event("hospital.booked.v1", delivery, state, Priority.URGENT)]

    async def _arrival(self, delivery: Delivery, notice: clinical.ArrivalNotice) -> Told:
        subject = delivery.message.subject
        self.memory.note_asked("arrival", notice.notice_id, notice.call_id, subject)
        taken = await self.dialect.announce(notice, delivery.message.body, delivery.key)
        return _note(taken.number), []

    async def _visit(self, delivery: Delivery, wanted: clinical.VisitRequest) -> Told:
        subject = delivery.message.subject
        self.memory.note_asked("visit", wanted.visit_id, wanted.call_id, subject)
        said = await self.dialect.visit(wanted, delivery.message.body, delivery.key)
        state = clinical.VisitState(
            event_id=f"{OUTSIDE}-visit-{wanted.visit_id}-{said.state}",
            visit_id=wanted.visit_id,
            call_id=wanted.call_id,
            state=said.state,
            number=said.number,
            reason=said.reason,
            at=datetime.now(UTC),
        )
        note = _note(said.number) if said.state == "accepted" else said.state
        return note, [self._event("visit.state.v1", delivery, state)]

    def _event(
        self,
        type: str,
        delivery: Delivery,
        event: Any,
        priority: Priority = Priority.ROUTINE,
    ) -> Message:
        """Return the event that answers a delivery: the same one for each of its attempts."""
        return Message.new(
            type,
            self.name,
            event,
            subject=delivery.message.subject,
            id=message_id(type, OUTSIDE, event.event_id),
            priority=priority,
            correlation_id=event.number,
            traceparent=delivery.message.traceparent,
        )

    # -- from the hospitals' system -------------------------------------------------------------

    async def poll(self) -> None:
        """Ask for changes; the cursor moves once they are on the router's disk."""
        if self.partner.breaker.wait_s(time.monotonic()):
            return
        more = True
        while more:
            try:
                told = await self.dialect.changes(self.memory.cursor)
                if messages := self._reader.messages(told):
                    await self.ingress.offer(messages)
            except Retry:
                return  # the outage is told by the partner; the next round asks again
            except (Reject, NotAccepted) as error:
                system = self.settings.partner.system or self.name
                LOG.warning(text("rmis.no_changes", system=system, reason=reason_of(error)))
                return
            more = told.more and told.cursor != self.memory.cursor
            if told.cursor:
                self.memory.cursor = told.cursor

    def app(self) -> Starlette:
        """Return the server of changes, and the page of figures."""
        door = Door(
            self.ingress,
            system=self.settings.partner.system or self.name,
            bytes_max=self.settings.body_bytes_max,
            answer=lambda code, _, sentence: msgspec.json.encode(contract.Answer(code, sentence)),
            subject=lambda about: about,
        )
        changes = door.endpoint("changes", lambda _, body: self._changes(body))

        async def figures(_: Request) -> Response:
            return Response(msgspec.json.encode(self.figures()), media_type="application/json")

        return Starlette(
            routes=[
                Route("/rmis/changes", changes, methods=["POST"]),
                Route("/figures", figures),
            ]
        )

    def _changes(self, body: bytes) -> list[Message]:
        return self._reader.posted(decode_each(body, contract.PostedChanges, "changes"))


def _note(number: str | None) -> str:
    return coded("rmis.taken", number=number or "-")
