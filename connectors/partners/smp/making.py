"""What the ambulance system posts becomes messages: which type, about what, under which id."""

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, Final

import msgspec

from connectors.partners.smp import contract
from connectors.runtime.door.body import BadInput, convert, decode, without_mark
from connectors.runtime.door.claims import Namespace
from connectors.runtime.door.door import message_id
from connectors.runtime.number import numbers
from connectors.runtime.repeats import digest_of
from proto import catalogue, schemas
from proto.message import Message, Priority

DIAL_MS: Final = 30_000  # nobody waits longer for a click
# What the ambulance wants done for its patients, and which field makes a repeat a repeat.
CLINICAL: Final = (
    "call.ticket.v1",
    "call.card.v1",
    "hospital.book.v1",
    "hospital.cancel.v1",
    "hospital.arrival.v1",
    "visit.request.v1",
)
IDENTITY: Final = ("card_id", "booking_id", "notice_id", "visit_id", "id")
encode: Final = msgspec.json.Encoder().encode


class Maker:
    """Makes messages of connector `name`; without `clinical` nothing about patients is made. Their
    ids are of the namespace `names`: the ambulance's number and all that it says under it."""

    def __init__(self, name: str, clinical: bool, names: Namespace | None = None) -> None:
        self._name = name
        self._names = names or Namespace()
        self._clinical_wanted = clinical
        self._own: Final[dict[str, Callable[[bytes], list[Message]]]] = {
            "call.status.v1": self._status,
            "incident.card_update.v1": self._card,
            "telephony.dial.v1": self._dial,
        }

    @property
    def types(self) -> tuple[str, ...]:
        """What can be posted."""
        return (*self._own, *CLINICAL)

    def make(self, type: str, body: bytes) -> list[Message]:
        """Return the messages of one post; none when the settings send it nowhere. Raises
        BadInput."""
        body = without_mark(body)
        if own := self._own.get(type):
            return own(body)
        if type not in CLINICAL:
            raise BadInput("type", f"is not one of {', '.join(self.types)}")
        return self._clinical(type, decode(body, catalogue.entry(type).schema), body)

    def _clinical(self, type: str, given: Any, body: bytes) -> list[Message]:
        if not self._clinical_wanted:
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
                self._name,
                body,
                subject=subject,
                id=self._names.id_of(type, name, version, _digest(body)),
                priority=Priority.URGENT if urgent else Priority.ROUTINE,
                correlation_id=numbers(call, name, *_patients(given)),
            )
        ]

    def _status(self, body: bytes) -> list[Message]:
        """One message for each card of System-112 that the call is tied to (docs/domain.md 2.3),
        and one for each outside service that handed it in."""
        raw = decode(body, dict[str, Any])
        report = convert(raw, contract.StatusReport)
        cards, refs = _several(report.id112), _several(report.external)
        if len(cards) + len(refs) > 1:
            _judge(len(cards) + len(refs), len(body))
        raw["source"] = report.source or self._name
        for name in ("id112", "external"):
            raw.pop(name, None)
        # When it was written down is no fact of the call: who repeats may write it down anew.
        digest = digest_of(raw, without=("recorded_at",))
        messages = []
        each: Sequence[str | None] = cards or [None]
        for id112 in each:
            body = encode(raw if id112 is None else raw | {"id112": id112})
            id = self._names.id_of("call.status.v1", report.event_id, id112, digest)
            subject = f"112-{id112}" if id112 else f"call-{report.call_id}"
            messages.append(self._message("call.status.v1", id, subject, body, report.call_id))
        for ref in refs:
            id = self._names.id_of("external.status.v1", report.event_id, ref, digest)
            body = encode(raw | {"external": ref})
            subject = f"ext-{ref}"
            messages.append(self._message("external.status.v1", id, subject, body, report.call_id))
        return messages

    def _card(self, body: bytes) -> list[Message]:
        card = decode(body, schemas.CardUpdate)
        changed = card.changed_at.astimezone(UTC).isoformat()
        id = message_id("incident.card_update.v1", card.id112, changed, _digest(body))
        subject = f"112-{card.id112}"
        return [self._message("incident.card_update.v1", id, subject, body)]

    def _dial(self, body: bytes) -> list[Message]:
        order = decode(body, contract.DialOrder)
        subject = f"112-{order.id112}" if order.id112 else f"operator-{order.operator}"
        raw = decode(body, dict[str, Any])
        id = self._names.id_of("telephony.dial.v1", order.request_id, digest_of(raw))
        del raw["request_id"]
        message = self._message("telephony.dial.v1", id, subject, encode(raw))
        late = message.time + DIAL_MS
        return [msgspec.structs.replace(message, expires=late)]

    def sent_id(self, message: Message, id: str, number: int) -> str:
        """Return the id of a message that its sender has named `id`: the same for its repeat, which
        says the same; `number` is its place among those that one post becomes."""
        said = digest_of(decode(message.body, dict[str, Any], whole=False), ("recorded_at",))
        return self._names.id_of(message.type, "sent", id, str(number), said)

    def _message(self, type: str, id: str, subject: str, body: bytes, *known_by: str) -> Message:
        return Message.new(
            type,
            self._name,
            body,
            subject=subject,
            id=id,
            priority=Priority.URGENT,
            correlation_id=numbers(*known_by),
        )


def _patients(given: Any) -> list[str | None]:
    """Return the numbers of whom a wish of the ambulance is about. One that no system has
    identified has a number within its card only."""
    if isinstance(given, schemas.CallTicket):
        persons = given.patients
    else:
        patient: schemas.Person | None = getattr(given, "patient", None)
        persons = [] if patient is None else [patient]
    return [one.id for one in persons if one.identified_by]


def _digest(body: bytes) -> str:
    return digest_of(decode(body, dict[str, Any], whole=False))


def _several(given: str | list[str] | None) -> list[str]:
    """Return each once."""
    return list(dict.fromkeys(given)) if isinstance(given, list) else [given] if given else []


def _judge(count: int, size: int) -> None:
    """Raise BadInput for what is too much before any of it is made."""
    if count * size > contract.MADE_BYTES_MAX:
        rule = f"{count} messages of {size} bytes are more than {contract.MADE_BYTES_MAX}: post"
        raise BadInput("id112", f"{rule} it for fewer cards at once, or say less", 413)
