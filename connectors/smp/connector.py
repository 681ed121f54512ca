"""The connector of the ambulance system."""

from datetime import UTC
from typing import Annotated, Any, ClassVar, Final

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from connectors.runtime.body import convert, decode
from connectors.runtime.connector import Connector
from connectors.runtime.door import Door, message_id
from connectors.runtime.partner import PartnerSettings
from connectors.runtime.settings import ConnectorSettings
from connectors.smp import contract
from connectors.smp.questions import Questions
from proto import catalogue, schemas
from proto.client import Delivery, Reject, Retry
from proto.message import Message, Priority
from proto.wording import text

DIAL_MS: Final = 30_000  # nobody waits longer for a click
encode: Final = msgspec.json.Encoder().encode
PATHS: Final = {
    "incident.card.v1": "/smp/calls",
    "incident.cancelled.v1": "/smp/cancellations",
    "telephony.call.v1": "/smp/telephony/calls",
    "telephony.joined.v1": "/smp/telephony/joined",
    "telephony.operator.v1": "/smp/telephony/operators",
    "telephony.group.v1": "/smp/telephony/groups",
    "telephony.dialled.v1": "/smp/telephony/dialled",
    "transfer.state.v1": "/smp/transfers",
    "hospital.booked.v1": "/smp/hospital/bookings",
    "hospital.outcome.v1": "/smp/hospital/outcomes",
    "visit.state.v1": "/smp/visits",
    "document.state.v1": "/smp/documents",
    "register.state.v1": "/smp/registers",
    "worker.changed.v1": "/smp/workers",
    "worker.removed.v1": "/smp/workers/removals",
}
# What the ambulance wants done for its patients, and which field makes a repeat a repeat.
WISHES: Final = {
    "/bus/tickets": "call.ticket.v1",
    "/bus/call-cards": "call.card.v1",
    "/bus/hospital/bookings": "hospital.book.v1",
    "/bus/hospital/cancellations": "hospital.cancel.v1",
    "/bus/hospital/arrivals": "hospital.arrival.v1",
    "/bus/visits": "visit.request.v1",
}
IDENTITY: Final = ("card_id", "booking_id", "notice_id", "visit_id", "id")


class SmpSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.smp]. With `clinical` off the ambulance's tickets, call cards, beds and visits
    are taken and go nowhere: for a region whose hospitals' system is not on the bus yet. A question
    of the ambulance is answered within `question_timeout_s`."""

    partner: PartnerSettings
    listen: Annotated[str, msgspec.Meta(pattern=r"^.+:\d{1,5}$")] = "127.0.0.1:7103"
    clinical: bool = True
    question_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 3.0


class SmpConnector(Connector):
    """See the module; the contract is `connectors.smp.contract`."""

    Settings: ClassVar[type[ConnectorSettings]] = SmpSettings
    settings: SmpSettings

    # -- to the ambulance system ----------------------------------------------------------------

    async def handle(self, delivery: Delivery) -> str | None:
        """Bring a card, a cancellation or a worker, byte for byte. Raises Retry or Reject."""
        message = delivery.message
        path = PATHS.get(message.type)
        if path is None:
            raise Reject(text("connector.note_no_type", type=message.type))
        answer = await self.partner.send("POST", path, message.body, delivery.key)
        if answer.status >= 300:
            raise Reject(f"HTTP {answer.status}")
        try:
            reply = msgspec.json.decode(answer.body, type=contract.CallReply)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Retry(text("connector.note_bad_reply", status=answer.status)) from None
        return f"HTTP {answer.status}, {reply.outcome} {reply.call_id}".strip()

    # -- from the ambulance system --------------------------------------------------------------

    def app(self) -> Starlette:
        """Return the server of statuses, tickets and cards."""
        door = Door(
            self.ingress,
            system=self.settings.partner.system or self.name,
            bytes_max=self.settings.body_bytes_max,
            answer=lambda code, _, sentence: encode(contract.BusReply(code, sentence)),
            subject=lambda about: about,
        )
        status = door.endpoint("status", lambda _, body: self._status(body))
        card = door.endpoint("card", lambda _, body: self._card(body))
        dial = door.endpoint("dial", lambda _, body: self._dial(body))
        questions = Questions(self.bus, self.settings)
        return Starlette(
            routes=[
                Route("/bus/status", status, methods=["POST"]),
                Route("/bus/cards", card, methods=["POST"]),
                Route("/bus/dial", dial, methods=["POST"]),
                *(self._wish(door, path, type) for path, type in WISHES.items()),
                questions.route(),
            ]
        )

    def _wish(self, door: Door, path: str, type: str) -> Route:
        shape = catalogue.entry(type).schema

        def make(_: str, body: bytes) -> list[Message]:
            return self._clinical(type, decode(body, shape), body)

        return Route(path, door.endpoint(type, make), methods=["POST"])

    def _clinical(self, type: str, given: Any, body: bytes) -> list[Message]:
        if not self.settings.clinical:
            return []
        if isinstance(given, schemas.CallTicket):
            cards = given.source.id112
            call, id112 = given.id, cards[0] if cards else None
        else:
            call, id112 = given.call_id, given.id112
        name = next(getattr(given, field) for field in IDENTITY if hasattr(given, field))
        version = str(given.version) if isinstance(given, schemas.CallTicket) else None
        subject = f"112-{id112}" if id112 else f"call-{call}"
        urgent = type.startswith("hospital.")
        return [
            Message.new(
                type,
                self.name,
                body,
                subject=subject,
                id=message_id(type, name, version),
                priority=Priority.URGENT if urgent else Priority.ROUTINE,
                correlation_id=call,
            )
        ]

    def _status(self, body: bytes) -> list[Message]:
        """One message for each card of System-112 that the call is tied to (domain.md 2.3)."""
        raw = decode(body, dict[str, Any])
        report = convert(raw, contract.StatusReport)
        cards = report.id112 if isinstance(report.id112, list) else [report.id112]
        messages = []
        for id112 in cards or [None]:
            one = {**raw, "source": report.source or self.name}
            one.pop("id112", None)
            if id112 is not None:
                one["id112"] = id112
            id = message_id("call.status.v1", report.event_id, id112)
            subject = f"112-{id112}" if id112 else f"call-{report.call_id}"
            messages.append(self._message("call.status.v1", id, subject, encode(one)))
        return messages

    def _card(self, body: bytes) -> list[Message]:
        card = decode(body, schemas.CardUpdate)
        changed = card.changed_at.astimezone(UTC).isoformat()
        id = message_id("incident.card_update.v1", card.id112, changed)
        subject = f"112-{card.id112}"
        return [self._message("incident.card_update.v1", id, subject, body)]

    def _dial(self, body: bytes) -> list[Message]:
        order = decode(body, contract.DialOrder)
        subject = f"112-{order.id112}" if order.id112 else f"operator-{order.operator}"
        id = message_id("telephony.dial.v1", order.request_id)
        raw = decode(body, dict[str, Any])
        del raw["request_id"]
        message = self._message("telephony.dial.v1", id, subject, encode(raw))
        late = message.time + DIAL_MS
        return [msgspec.structs.replace(message, expires=late)]

    def _message(self, type: str, id: str, subject: str, body: bytes) -> Message:
        return Message.new(
            type,
            self.name,
            body,
            subject=subject,
            id=id,
            priority=Priority.URGENT,
        )
