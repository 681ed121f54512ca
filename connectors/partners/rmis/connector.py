"""The connector of the hospitals' system: tickets, cards, beds and visits go there, what became of
them comes back, and questions about patients are answered.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import msgspec

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
from connectors.runtime.door.door import message_id
from connectors.runtime.door.served import Came, Served
from connectors.runtime.log import LOG
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.statefile import Alarm
from connectors.runtime.words import reason_of
from connectors.services.lookup import Lookup, LookupSettings
from proto import clinical, schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.errors import Code, RequestFailed
from proto.message import Message, Priority
from proto.note import coded
from proto.retention import DAY_S
from proto.wording import text


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

    Settings: ClassVar = RmisSettings
    takes: ClassVar = {
        "call.ticket.v1": (schemas.CallTicket, "put_ticket"),
        "call.status.v1": (schemas.StatusEvent, "put_status"),
        "call.card.v1": (clinical.CallCard, "put_card"),
        "hospital.book.v1": (clinical.BedRequest, "book"),
        "hospital.cancel.v1": (clinical.BedCancel, "cancel"),
        "hospital.arrival.v1": (clinical.ArrivalNotice, "announce"),
        "visit.request.v1": (clinical.VisitRequest, "ask_visit"),
    }
    answers: ClassVar = {
        "patient.lookup.v1": (clinical.PatientQuestion, "_questions.identify"),
        "patient.summary.v1": (clinical.SummaryQuestion, "_questions.summary"),
        "hospital.list.v1": (clinical.HospitalQuestion, "_questions.hospitals"),
    }
    asked_is: ClassVar = "the hospitals' system"
    serves: ClassVar = {"POST /rmis/changes": Served(bytes, "hear_changes", "changes")}
    publishes: ClassVar = (
        "transfer.state.v1",
        "hospital.booked.v1",
        "hospital.outcome.v1",
        "visit.state.v1",
    )
    owns: ClassVar = ("search", "lookup", "memory")
    door_scopes: ClassVar = {"/rmis": "changes", "/figures": "figures"}
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
        self._questions = Questions(self.dialect, self.lookup, self.search)

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
        """See Connector: a hospitals' system need not know all that the ambulance tells."""
        try:
            return await super().handle(delivery)
        except Untold:
            return coded("rmis.untold", system=self.system)

    async def answer(self, message: Message) -> dict[str, Any]:
        """See Connector: the brigade waits for it."""
        within_s = self.settings.question_timeout_s
        try:
            async with asyncio.timeout(within_s):
                return await super().answer(message)
        except TimeoutError:
            raise RequestFailed(Code.TIMEOUT, f"no answer in {within_s:g} s") from None
        except Untold:
            sentence = "this hospitals' system answers no such question"
            raise RequestFailed(Code.UNKNOWN_TYPE, sentence) from None

    async def put_ticket(self, ticket: schemas.CallTicket, delivery: Delivery) -> str:
        """Hand over a ticket. Raises Retry, Reject, Untold, NotAccepted."""
        self.memory.note_asked("ticket", ticket.id, ticket.id, delivery.message.subject)
        taken = await self.dialect.put_ticket(ticket, delivery.message.body, delivery.key)
        return await self._taken(delivery, "ticket", ticket.id, ticket.version, taken)

    async def put_status(self, status: schemas.StatusEvent, delivery: Delivery) -> str:
        """Hand over a status. Raises Retry, Reject, Untold."""
        taken = await self.dialect.put_status(status, delivery.message.body, delivery.key)
        return _note(taken.number)

    async def put_card(self, card: clinical.CallCard, delivery: Delivery) -> str:
        """Hand over a call card. Raises Retry, Reject, Untold, NotAccepted."""
        self.memory.note_asked("card", card.id, card.id, delivery.message.subject)
        taken = await self.dialect.put_card(card, delivery.message.body, delivery.key)
        return await self._taken(delivery, "card", card.id, card.version, taken)

    async def _taken(
        self,
        delivery: Delivery,
        kind: Literal["ticket", "card"],
        call: str,
        version: int,
        taken: contract.Taken,
    ) -> str:
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
        await self._tell("transfer.state.v1", delivery, state)
        return _note(taken.number)

    async def book(self, bed: clinical.BedRequest, delivery: Delivery) -> str:
        """Ask for a bed. Raises Retry, Reject, Untold, NotAccepted."""
        self.memory.note_asked("bed", bed.booking_id, bed.call_id, delivery.message.subject)
        booked = await self.dialect.book(bed, delivery.message.body, delivery.key)
        return await self._bed(delivery, bed.booking_id, bed.call_id, booked)

    async def cancel(self, cancelled: clinical.BedCancel, delivery: Delivery) -> str:
        """Give a bed back. Raises Retry, Reject, Untold, NotAccepted."""
        subject = delivery.message.subject
        self.memory.note_asked("bed", cancelled.booking_id, cancelled.call_id, subject)
        booked = await self.dialect.cancel(cancelled, delivery.message.body, delivery.key)
        # A bed that stays booked is news all the same: not the event that told of the booking.
        event = "kept" if booked.state == "booked" else booked.state
        return await self._bed(delivery, cancelled.booking_id, cancelled.call_id, booked, event)

    async def _bed(
        self,
        delivery: Delivery,
        booking: str,
        call: str,
        booked: contract.Booked,
        event: str = "",
    ) -> str:
        state = clinical.BedState(
            event_id=f"{OUTSIDE}-bed-{booking}-{event or booked.state}",
            booking_id=booking,
            call_id=call,
            state=booked.state,
            number=booked.number,
            reason=booked.reason,
            at=datetime.now(UTC),
        )
        await self._tell("hospital.booked.v1", delivery, state, Priority.URGENT)
        return f"{booked.state} {booked.number or ''}".strip()

    async def announce(self, notice: clinical.ArrivalNotice, delivery: Delivery) -> str:
        """Announce a brigade. Raises Retry, Reject, Untold."""
        subject = delivery.message.subject
        self.memory.note_asked("arrival", notice.notice_id, notice.call_id, subject)
        taken = await self.dialect.announce(notice, delivery.message.body, delivery.key)
        return _note(taken.number)

    async def ask_visit(self, wanted: clinical.VisitRequest, delivery: Delivery) -> str:
        """Ask for a visit at home. Raises Retry, Reject, Untold, NotAccepted."""
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
        await self._tell("visit.state.v1", delivery, state)
        return _note(said.number) if said.state == "accepted" else said.state

    async def _tell(
        self,
        type: str,
        delivery: Delivery,
        event: Any,
        priority: Priority = Priority.ROUTINE,
    ) -> None:
        """Publish the event that answers a delivery: the same one for each of its attempts. Raises
        NotAccepted."""
        message = Message.new(
            type,
            self.name,
            event,
            subject=delivery.message.subject,
            id=message_id(type, OUTSIDE, event.event_id),
            priority=priority,
            correlation_id=event.number,
            traceparent=delivery.message.traceparent,
        )
        await self.ingress.publish([message])

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
                LOG.warning(text("rmis.no_changes", system=self.system, reason=reason_of(error)))
                return
            more = told.more and told.cursor != self.memory.cursor
            if told.cursor:
                self.memory.cursor = told.cursor

    def hear_changes(self, body: bytes, _: Came) -> list[Message]:
        """Return the messages of changes that were posted. Raises BadInput."""
        return self._reader.posted(decode_each(body, contract.PostedChanges, "changes"))


def _note(number: str | None) -> str:
    return coded("rmis.taken", number=number or "-")
