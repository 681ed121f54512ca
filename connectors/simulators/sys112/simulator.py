"""System-112 played by a program: pushes cards, takes reactions, keeps a ledger.

PUT  /112/cards/{id112}            a card back
POST /112/cards/{id112}/reactions  AddReaction
POST /112/cards/{id112}/finish     FinishReaction
POST /112/soap                     the same three by SOAP
GET  /ledger                       what was applied, once per idempotency key
POST /drive                        {"cards": [{"operation", "id112", "body"}]}: push these
POST /faults                       switches of connectors.simulators.kit.faults
"""

import asyncio
from collections import defaultdict
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.sys112 import contract, soapdoor
from connectors.runtime.door.body import BadInput, convert, decode, read_body
from connectors.runtime.markup import soap, xml
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import Courier, SimulatorSettings, closing, spawn

BYTES_MAX: Final = 8 * 1024 * 1024
OPERATIONS: Final = {
    "update": ("PUT", ""),
    "cancel": ("POST", "/cancel"),
    "close": ("POST", "/close"),
}
SOAP_NAMES: Final = {"update": "UpdateCard", "cancel": "CancelCard", "close": "CloseCard"}
SHAPES: Final[dict[str, type[contract.Part]]] = {
    "UpdateCard": contract.UpdateCard,
    "AddReaction": contract.AddReaction,
    "FinishReaction": contract.FinishReaction,
}

Request112 = TypeVar("Request112")


class Push(msgspec.Struct, frozen=True):
    """One thing that 112 sends: `operation` is "update", "cancel" or "close"; by SOAP, or JSON."""

    operation: str
    id112: str
    body: Any
    soap: bool = False


class System112:
    """The state of the simulated System-112."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger)
        self.courier = Courier(settings)
        self.answers: list[dict[str, Any]] = []
        self.known = {entry["id112"] for entry in self.ledger.entries}
        self._lanes: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.tasks: set[asyncio.Task[None]] = set()

    def drive(self, pushes: list[Push]) -> None:
        """Push in the background, in order per card."""
        for push in pushes:
            spawn(self.tasks, self.push(push))

    async def push(self, push: Push) -> None:
        """Push one card until the connector has taken or refused it."""
        self.known.add(push.id112)
        method, step = OPERATIONS[push.operation]
        path = f"/112/cards/{quote(push.id112, safe='')}{step}"
        async with self._lanes[push.id112]:
            if push.soap:
                await self._push_soap(push)
                return
            answer = await self.courier.bring(method, path, msgspec.json.encode(push.body))
        reply = msgspec.json.decode(answer.body) if answer.body else {}
        self.answers.append(
            {"id112": push.id112, "operation": push.operation, "status": answer.status, **reply}
        )

    async def _push_soap(self, push: Push) -> None:
        """Push by SOAP, again after 3 s (or what the settings say) while the answer is 503."""
        name = SOAP_NAMES[push.operation]
        root = etree.Element(f"{{{soapdoor.NAMESPACE}}}{name}Request")
        xml.write(root, push.body, soapdoor.NAMESPACE)
        while True:
            answer = await self.courier.bring("POST", soapdoor.PATH, soap.envelope(root))
            reply = xml.read(soap.read_envelope(answer.body).body, soapdoor.PlainReply)
            if reply.Code != "503":
                break
            root = etree.fromstring(etree.tostring(root))
            self.courier.repeats += 1
            await asyncio.sleep(self.settings.repeat_s)
        told = {"id112": push.id112, "operation": push.operation, "status": answer.status}
        self.answers.append(told | {"Code": reply.Code, "CodeDescr": reply.CodeDescr or ""})

    async def take(self, request: Request, operation: str, shape: type[Request112]) -> Response:
        """Apply one operation of the ambulance, once per idempotency key."""
        id112 = str(request.path_params["id112"])
        key = request.headers.get("idempotency-key", "")
        try:
            raw = decode(await read_body(request, BYTES_MAX), dict[str, Any])
            convert(raw, shape)
            if _card_of(raw) != id112:
                raise BadInput("Id112", "differs from the address of the request")
        except BadInput as bad:
            return _reply(400, id112, bad.sentence)
        return _reply(*self.apply(key, id112, operation, raw))

    async def take_soap(self, call: soap.Call) -> xml.Element:
        """The same as a SOAP operation."""
        name = xml.local(call.body).removesuffix("Request")
        raw = xml.plain(call.body, SHAPES[name])
        xml.typed(raw, SHAPES[name])
        status, id112, sentence = self.apply(call.key, _card_of(raw), name, raw)
        code = status if status in soapdoor.PROTOCOL_CODES else 500
        return soapdoor.answer(name, id112, code, sentence or None, soapdoor.NAMESPACE)

    def apply(
        self, key: str, id112: str, operation: str, raw: dict[str, Any]
    ) -> tuple[int, str, str]:
        """Apply what is well formed, once; return status, card and sentence."""
        if not key:
            return 400, id112, "Idempotency-Key: is required"
        if known := self.ledger.answer_of(key):
            return known[0], id112, known[1]
        if self.settings.strict and id112 not in self.known:
            return 404, id112, "there is no such card"
        entry = {"operation": operation, "id112": id112, **_shown(raw)}
        self.ledger.record(key, entry, 200, "")
        return 200, id112, ""

    def report(self) -> dict[str, Any]:
        """Return the ledger, what the connector answered to our pushes, and counters."""
        return {
            "entries": self.ledger.entries,
            "repeats": self.ledger.repeats,
            "answers": self.answers,
            "pushing": len(self.tasks),
            "pushes_repeated": self.courier.repeats,
        }


def _card_of(raw: dict[str, Any]) -> str:
    return str(raw.get("Card", {}).get("Id112", "") if "Card" in raw else raw.get("Id112", ""))


def _shown(raw: dict[str, Any]) -> dict[str, Any]:
    names = {"ActionType": "action", "UnitName": "unit", "ActionTimeIsoStr": "at", "ExtId": "call"}
    return {shown: raw[name] for name, shown in names.items() if name in raw}


def _reply(status: int, id112: str, sentence: str) -> Response:
    body = msgspec.json.encode(contract.Reply(id112, str(status), sentence))
    return Response(body, status, media_type="application/json")


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    system = System112(settings)

    async def card(request: Request) -> Response:
        return await system.take(request, "UpdateCard", contract.UpdateCard)

    async def reaction(request: Request) -> Response:
        return await system.take(request, "AddReaction", contract.AddReaction)

    async def finish(request: Request) -> Response:
        return await system.take(request, "FinishReaction", contract.FinishReaction)

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode(system.report()), media_type="application/json")

    async def drive(request: Request) -> Response:
        try:
            body = decode(await read_body(request, BYTES_MAX), dict[str, list[Push]])
        except BadInput as bad:
            return Response(bad.sentence, 400)
        system.drive(body.get("cards", []))
        return Response(status_code=202)

    routes = [
        Route("/112/cards/{id112:path}", card, methods=["PUT"]),
        Route("/112/cards/{id112:path}/reactions", reaction, methods=["POST"]),
        Route("/112/cards/{id112:path}/finish", finish, methods=["POST"]),
        soap.SoapService(
            soapdoor.PATH,
            {f"{name}Request": system.take_soap for name in SHAPES},
            bytes_max=BYTES_MAX,
        ).route(),
        Route("/ledger", ledger),
        system.ledger.page(),
        Route("/drive", drive, methods=["POST"]),
    ]
    lifespan = closing(system.tasks, system.courier)
    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)
