"""The connector of System-112: a server for its cards, a client for our reactions."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from starlette.applications import Starlette
from starlette.routing import Route

from connectors.partners.sys112 import contract, mapping, soapdoor
from connectors.partners.sys112.deadlines import Deadlines
from connectors.partners.sys112.memory import Memory
from connectors.partners.sys112.words import LAST, Words
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.door.body import BadInput, convert, decode_urgent, without_mark
from connectors.runtime.door.door import Door, Mended, message_id
from connectors.runtime.markup import soap
from connectors.runtime.number import numbers
from connectors.runtime.partner.partner import Answer, BadReply, PartnerSettings, path_part
from connectors.runtime.repeats import digest_of
from connectors.runtime.statefile import Alarm
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


class Sys112Settings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.sys112]. `protocol` is what we speak to System-112 (with "soap", partner.url is
    the address of its service); it may speak both to us, SOAP at /112/soap. `sys_code` is our name
    in what we send; repeats to System-112 are not sooner than `repeat_after_s` and grow to
    `repeat_after_max_s` (docs/domain.md 4.1: 3 s).

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
    repeat_after_max_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 300.0
    state_file: Path | None = None
    unknown_after_h: Annotated[float, msgspec.Meta(ge=0, le=720)] = 72.0
    confirm_within_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0
    confirm_ignored: tuple[schemas.StatusCode, ...] = ()


class Sys112Connector(Connector):
    """See the module; the contract is `connectors.partners.sys112.contract`."""

    Settings: ClassVar[type[ConnectorSettings]] = Sys112Settings
    door_scopes: ClassVar[Mapping[str, str]] = {"/112": "cards"}
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

    async def close(self) -> None:
        """Let go of System-112 and of the memory."""
        await super().close()
        self._memory.close()

    def figures(self) -> dict[str, Any]:
        """Return how the cards were confirmed."""
        return {"confirmation": self._deadlines.figures()}

    def states(self) -> list[Alarm]:
        """Return the file of cards."""
        return [self._memory.state]

    # -- to System-112 --------------------------------------------------------------------------

    async def handle(self, delivery: Delivery) -> str | None:
        """Send a reaction or a card back. Raises Retry or Reject."""
        message = delivery.message
        try:
            if message.type == "incident.card_update.v1":
                card = decode_json(message.body, schemas.CardUpdate)
                request: Any = mapping.card_out(card, self.settings.sys_code, self._words)
                step, method, id112 = "", "PUT", card.id112
            elif message.type == "call.status.v1":
                status = decode_json(message.body, schemas.StatusEvent)
                id112 = status.id112 or ""
                request = self._reaction(status)
                finish = isinstance(request, contract.FinishReaction)
                step, method = "/finish" if finish else "/reactions", "POST"
            else:
                raise Reject(coded("connector.no_type", type=message.type))
        except UNREADABLE:
            raise Reject(coded("connector.bad_body")) from None
        if request is None:
            return coded("connector.untold", system="112")
        if self.settings.protocol == "soap":
            return await self._send(partial(self._ask_soap, request, delivery.key), delivery)
        path = f"/112/cards/{path_part(id112)}{step}"
        asked = partial(self._ask_json, method, path, encode(request), delivery.key)
        return await self._send(asked, delivery)

    async def _ask_json(self, method: str, path: str, body: bytes, key: str) -> tuple[int, str]:
        return await self.partner.ask(method, path, body, key, coded_reply)

    async def _ask_soap(self, request: contract.Part | dict[str, Any], key: str) -> tuple[int, str]:
        name = "UpdateCard" if isinstance(request, dict) else type(request).__name__
        try:
            body = soapdoor.request(name, request)
        except BadInput as bad:
            raise Reject(bad.sentence) from None
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

    async def _send(self, ask: Callable[[], Awaitable[tuple[int, str]]], delivery: Delivery) -> str:
        try:
            status, code = await ask()
        except Retry as retry:
            own_s = self._repeat_after_s(delivery.attempt)
            longest_s = max(self.settings.repeat_after_max_s, own_s)
            raise Retry(str(retry), min(max(retry.after_s or 0.0, own_s), longest_s)) from None
        note = f"HTTP {status}, Code {code}"
        if status < 300 and code == "200":
            return note
        raise Reject(note) if code_of(code) == code else RejectInWords(note[:WORDS_MAX])

    def _repeat_after_s(self, attempt: int) -> float:
        grown = self.settings.repeat_after_s * 2.0 ** min(attempt - 1, 20)
        return min(grown, max(self.settings.repeat_after_max_s, self.settings.repeat_after_s))

    # -- from System-112 ------------------------------------------------------------------------

    def app(self) -> Starlette:
        """Return the server of UpdateCard, CancelCard and CloseCard."""
        door = Door(
            self.ingress,
            system=self.settings.partner.system or self.name,
            bytes_max=self.settings.body_bytes_max,
            answer=_reply,
            subject=lambda id112: PREFIX + id112,
        )
        update = door.endpoint("UpdateCard", self._update_card, "id112")
        cancel = door.endpoint("CancelCard", partial(self._end, contract.CancelCard), "id112")
        close = door.endpoint("CloseCard", partial(self._end, contract.CloseCard), "id112")
        return Starlette(
            routes=[
                # A card's number may have a "/" in it.
                Route("/112/cards/{id112:path}/cancel", cancel, methods=["POST"]),
                Route("/112/cards/{id112:path}/close", close, methods=["POST"]),
                Route("/112/cards/{id112:path}", update, methods=["PUT"]),
                soapdoor.service(
                    door,
                    {
                        "UpdateCard": (contract.UpdateCard, self._taken_card),
                        "CancelCard": (contract.CancelCard, self._ended),
                        "CloseCard": (contract.CloseCard, self._ended),
                    },
                    self.settings.body_bytes_max,
                ),
            ]
        )

    def _update_card(self, id112: str, body: bytes) -> list[Message]:
        raw, odd = decode_urgent(body)
        update = convert(raw, contract.UpdateCard)
        if update.card.id112 != id112:
            raise BadInput("Card.Id112", "differs from the card in the address of the request")
        return Mended(self._taken_card(update, raw, body), odd)

    def _taken_card(
        self, update: contract.UpdateCard, raw: dict[str, Any], _: bytes
    ) -> list[Message]:
        id112 = update.card.id112
        if not id112:
            raise BadInput("Card.Id112", "is required")
        contract.check_id("Card.Id112", id112)
        contract.check_card(update)
        card = mapping.card_in(update, raw, self._words)
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

    def _end(
        self, shape: type[contract.CancelCard] | type[contract.CloseCard], id112: str, body: bytes
    ) -> list[Message]:
        raw, odd = decode_urgent(body)
        request: contract.CancelCard | contract.CloseCard = convert(raw, shape)
        if request.id112 != id112:
            raise BadInput("Id112", "differs from the card in the address of the request")
        return Mended(self._ended(request, raw, body), odd)

    def _ended(
        self,
        request: contract.CancelCard | contract.CloseCard,
        raw: dict[str, Any],
        body: bytes,
    ) -> list[Message]:
        id112 = request.id112
        contract.check_id("Id112", id112)
        young = self._memory.age_s < self.settings.unknown_after_h * 3600
        if not young and not self._memory.knows(id112):
            raise BadInput("Id112", "there is no such card", 404)
        self._memory.end_card(id112)
        ended = mapping.cancelled_in(request, raw, datetime.now(UTC))
        digest = hashlib.sha256(body).hexdigest()
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


def _reply(status: int, id112: str, sentence: str) -> bytes:
    return encode(contract.Reply(id112, str(status), sentence))
