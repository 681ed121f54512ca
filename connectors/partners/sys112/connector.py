"""The connector of System-112: a server for its cards, a client for our reactions."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from starlette.routing import Route

from connectors.partners.sys112 import contract, mapping, soapdoor
from connectors.partners.sys112.deadlines import DESTINATION, Deadlines
from connectors.partners.sys112.memory import Memory
from connectors.partners.sys112.words import LAST, Words
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.door.body import BadInput, without_mark
from connectors.runtime.door.door import message_id
from connectors.runtime.door.served import Came, Served
from connectors.runtime.markup import soap
from connectors.runtime.number import numbers
from connectors.runtime.partner.partner import Answer, BadReply, PartnerSettings, path_part
from connectors.runtime.repeats import digest_of
from connectors.runtime.words import RejectInWords, code_of
from proto import schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.message import UNREADABLE, Message, Priority
from proto.nesting import decode_json
from proto.note import coded
from proto.retention import DAY_S

PREFIX: Final = "112-"
WORDS_MAX: Final = 400  # of what System-112 says beyond a code
PASSING: Final = frozenset({"500", "503"})
encode: Final = msgspec.json.Encoder().encode
CARDS: Final = "/112/cards/{id112:path}"  # a card's number may have a "/" in it


class Sys112Settings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.sys112]. `protocol` is what we speak to System-112 (with "soap", partner.url is
    the address of its service); it may speak both to us, SOAP at /112/soap. `sys_code` is our name
    in what we send; System-112 wants repeats not sooner than after 3 s (docs/domain.md 4.1).

    `state_file` remembers cards over a restart; while it is younger than `unknown_after_h`, a card
    that it does not know may be older than itself, and is not refused. A dispatcher confirms a card
    `confirm_within_s` after it came (0: nobody watches), by any status of the call but those in
    `confirm_ignored`.
    """

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7112"
    sys_code: str = "SMP"
    dds_type: str = contract.DDS_TYPE
    protocol: Literal["json", "soap"] = "json"
    repeat_after_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 3.0
    state_file: Path | None = None
    unknown_after_h: Annotated[float, msgspec.Meta(ge=0, le=720)] = 72.0
    confirm_within_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0
    confirm_ignored: tuple[schemas.StatusCode, ...] = ()


class Sys112Connector(Connector):
    """See the module; the contract is `connectors.partners.sys112.contract`."""

    Settings: ClassVar = Sys112Settings
    takes: ClassVar = {
        "incident.card_update.v1": (schemas.CardUpdate, "send_card"),
        "call.status.v1": (schemas.StatusEvent, "send_reaction"),
    }
    serves: ClassVar = {
        f"POST {CARDS}/cancel": Served(contract.CancelCard, "end_card", "CancelCard", urgent=True),
        f"POST {CARDS}/close": Served(contract.CloseCard, "end_card", "CloseCard", urgent=True),
        f"PUT {CARDS}": Served(contract.UpdateCard, "update_card", "UpdateCard", urgent=True),
    }
    publishes: ClassVar = (
        "incident.card.v1",
        "incident.cancelled.v1",
        "deadline.timer.v1",
        "deadline.missed.v1",
    )
    other_queues: ClassVar = {DESTINATION: Deadlines.takes}
    owns: ClassVar = ("_memory",)
    keeps: ClassVar = ("_memory.state",)
    door_scopes: ClassVar = {"/112": "cards"}
    settings: Sys112Settings

    def __init__(self, name: str, settings: Sys112Settings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self._words = Words()
        self._memory = Memory(settings.state_file, kept_s=settings.retention.sys112_days * DAY_S)
        self._deadlines = Deadlines(
            name,
            self.ingress.publish,
            self._memory,
            self._words,
            settings.confirm_within_s,
            settings.confirm_ignored,
        )

    async def stay(self) -> None:
        """Watch the deadlines."""
        await self._deadlines.run(self.bus)

    def forget(self) -> None:
        """See Connector."""
        self._memory.forget()

    def figures(self) -> dict[str, Any]:
        """Return how the cards were confirmed."""
        return {"confirmation": self._deadlines.figures()}

    # -- to System-112 --------------------------------------------------------------------------

    async def send_card(self, card: schemas.CardUpdate, delivery: Delivery) -> str:
        """Send a card back. Raises Retry or Reject."""
        request = mapping.card_out(card, self.settings.sys_code, self._words)
        return await self._send("PUT", card.id112, "", request, delivery.key)

    async def send_reaction(self, status: schemas.StatusEvent, delivery: Delivery) -> str:
        """Send what a status means to System-112. Raises Retry or Reject."""
        request = self._reaction(status)
        if request is None:
            return coded("connector.untold", system="112")
        step = "/finish" if isinstance(request, contract.FinishReaction) else "/reactions"
        return await self._send("POST", request.id112, step, request, delivery.key)

    async def _send(
        self, method: str, id112: str, step: str, request: contract.Part | dict[str, Any], key: str
    ) -> str:
        if self.settings.protocol == "soap":
            status, code = await self._ask_soap(request, key)
        else:
            path = f"/112/cards/{path_part(id112)}{step}"
            status, code = await self.partner.ask(method, path, encode(request), key, coded_reply)
        note = f"HTTP {status}, Code {code}"
        if status < 300 and code == "200":
            return note
        raise Reject(note) if code_of(code) == code else RejectInWords(note[:WORDS_MAX])

    async def _ask_soap(self, request: contract.Part | dict[str, Any], key: str) -> tuple[int, str]:
        name = "UpdateCard" if isinstance(request, dict) else type(request).__name__
        body = soapdoor.request(name, request)
        code = await soap.ask(
            self.partner,
            "",
            body,
            key,
            lambda reply: taken(soapdoor.code_of(reply)),
            soap=soap.SOAP11,
        )
        return 200, code

    def _reaction(
        self, status: schemas.StatusEvent
    ) -> contract.AddReaction | contract.FinishReaction | None:
        id112, told = status.id112, status
        reaction = self._words.reaction(status)
        if id112 is None or reaction is None:
            return None
        if reaction.word == LAST:
            # A double's card hears how far the call it doubles has come (docs/domain.md 2.3).
            call = status.duplicate_of or status.call_id
            last = self._memory.last_told(call, status.occurred_at)
            reaction = None if last is None else self._words.reaction(last)
            if last is None or reaction is None:
                return None
            told = msgspec.structs.replace(last, call_id=status.call_id)
        else:
            self._memory.note_told(status)
        settings = self.settings
        return mapping.reaction_out(told, id112, reaction, settings.sys_code, settings.dds_type)

    # -- from System-112 ------------------------------------------------------------------------

    def subject(self, about: str) -> str:
        """See Connector."""
        return PREFIX + about

    def reply(self, status: int, about: str, sentence: str) -> bytes:
        """See Connector."""
        return encode(contract.Reply(about, str(status), sentence))

    def routes(self) -> list[Route]:
        """Return the same operations as a SOAP service."""
        return [soapdoor.service(self, self.settings.body_bytes_max)]

    def update_card(self, update: contract.UpdateCard, came: Came) -> list[Message]:
        """Return the message of a card. Raises BadInput."""
        if came.about not in (None, update.card.id112):
            raise BadInput("Card.Id112", "differs from the card in the address of the request")
        id112 = update.card.id112
        if not id112:
            raise BadInput("Card.Id112", "is required")
        contract.check_id("Card.Id112", id112)
        contract.check_card(update)
        card = mapping.card_in(update, came.raw, self._words)
        at_work, over = self._words.is_at_work(card.state), self._words.is_over(card.state)
        if not self._memory.note_card(id112, card.changed_at, at_work=at_work, over=over):
            raise BadInput("Card.IncidentState", "takes a card back to work that is over", 403)
        # A repeat of 112 says the same, and so has the same id: accepted once. Whatever differs is
        # no repeat, be its Changed and contact those of another one.
        contact = update.ier.id if update.ier else None
        changed = card.changed_at.astimezone(UTC).isoformat()
        type = "incident.card.v1"
        id = message_id(type, update.sys_code, id112, changed, contact, digest_of(card))
        return [self._message(type, id, id112, card)]

    def end_card(
        self, request: contract.CancelCard | contract.CloseCard, came: Came
    ) -> list[Message]:
        """Return the message that a card is over. Raises BadInput."""
        if came.about not in (None, request.id112):
            raise BadInput("Id112", "differs from the card in the address of the request")
        id112 = request.id112
        contract.check_id("Id112", id112)
        young = self._memory.age_s < self.settings.unknown_after_h * 3600
        if not young and not self._memory.knows(id112):
            raise BadInput("Id112", "there is no such card", 404)
        self._memory.end_card(id112)
        ended = mapping.cancelled_in(request, came.raw, datetime.now(UTC))
        digest = hashlib.sha256(came.body).hexdigest()
        type = "incident.cancelled.v1"
        id = message_id(type, request.sys_code, id112, ended.kind, digest)
        return [self._message(type, id, id112, ended)]

    def _message(self, type: str, id: str, id112: str, body: schemas.Body) -> Message:
        return Message.new(
            type,
            self.name,
            body,
            subject=PREFIX + id112,
            id=id,
            priority=Priority.EMERGENCY,
            correlation_id=numbers(id112),
        )


def coded_reply(answer: Answer) -> tuple[int, str]:
    """Return the status and the Code of a reply. Raises BadReply when it has none, and Retry when
    it says that System-112 cannot take anything now."""
    try:
        code = decode_json(without_mark(answer.body), _Coded).Code
    except UNREADABLE:
        code = ""
    if not code:
        raise BadReply(f"HTTP {answer.status}, Code missing")
    return answer.status, taken(code, answer.status)


def taken(code: str, status: int = 200) -> str:
    """Return a Code that is about what was sent. Raises Retry for one that is not."""
    if code in PASSING:
        raise Retry(f"HTTP {status}, Code {code}")
    return code


class _Coded(msgspec.Struct):
    Code: str
