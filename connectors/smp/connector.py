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
from proto import schemas
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
    "worker.changed.v1": "/smp/workers",
    "worker.removed.v1": "/smp/workers/removals",
}


class SmpSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.smp]. With `tickets` off the ambulance's tickets are taken and go nowhere: switch
    it on together with a route for call.ticket.v1."""

    partner: PartnerSettings
    listen: Annotated[str, msgspec.Meta(pattern=r"^.+:\d{1,5}$")] = "127.0.0.1:7103"
    tickets: bool = False


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
        ticket = door.endpoint("ticket", lambda _, body: self._ticket(body))
        card = door.endpoint("card", lambda _, body: self._card(body))
        dial = door.endpoint("dial", lambda _, body: self._dial(body))
        return Starlette(
            routes=[
                Route("/bus/status", status, methods=["POST"]),
                Route("/bus/tickets", ticket, methods=["POST"]),
                Route("/bus/cards", card, methods=["POST"]),
                Route("/bus/dial", dial, methods=["POST"]),
            ]
        )

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

    def _ticket(self, body: bytes) -> list[Message]:
        ticket = decode(body, schemas.CallTicket)
        if not self.settings.tickets:
            return []
        cards = ticket.source.id112
        number = f"{ticket.received_at.year}-{ticket.number_year}"
        subject = f"112-{cards[0]}" if cards else f"call-{number}"
        id = message_id("call.ticket.v1", ticket.id, str(ticket.version))
        return [self._message("call.ticket.v1", id, subject, body)]

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
