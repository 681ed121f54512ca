"""ЦССИ-112 played by a program: takes cards in parts, keeps the newest of each.

POST /cssi    send_ukio
POST /drive   {"refuse": ["112-..."]}: requests with these cards are refused
GET  /ledger  what was taken, once per card and content
POST /faults  switches of connectors.simulators.kit.faults
"""

import hashlib
from typing import Any, Final

import msgspec
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.cssi112 import contract
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.runtime.markup import soap, xml
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import SimulatorSettings

BYTES_MAX: Final = 32 * 1024 * 1024


class Drive(msgspec.Struct):
    """How the centre is to behave from now on."""

    refuse: list[str] = []


class Centre:
    """The state of the simulated centre."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.ledger = Ledger(settings.ledger)
        self.drive = Drive()
        self.requests: list[int] = []

    async def send_ukio(self, call: soap.Call) -> xml.Element:
        """Take cards, all of a request or none."""
        given = xml.read(call.body, contract.Ukios).Ukio
        if not 1 <= len(given) <= contract.CARDS_MAX:
            raise BadInput("Ukios.Ukio", f"is not 1 to {contract.CARDS_MAX} cards")
        self.requests.append(len(given))
        if any(one.global_id in self.drive.refuse for one in given):
            return self._answer(contract.Reply("ERROR", 102, "a card is not well"))
        for one in given:
            self._take(one)
        return self._answer(contract.Reply("OK"))

    def _take(self, card: contract.Ukio) -> None:
        digest = hashlib.sha256(msgspec.json.encode(card)).hexdigest()[:16]
        key = f"{card.global_id}/{digest}"
        if self.ledger.answer_of(key) is None:
            self.ledger.record(key, {"card": card.global_id, "has": sorted(_said(card))}, 200, "")

    @staticmethod
    def _answer(reply: contract.Reply) -> xml.Element:
        space = contract.NAMESPACE
        root = etree.Element(f"{{{space}}}Response", nsmap={None: space})
        xml.write(root, reply, space)
        return root


def _said(card: contract.Ukio) -> set[str]:
    """Which parts a card has, and which times."""
    fields = msgspec.to_builtins(card)
    named = {"Address", "CallContent", "Card03", "ReceptionItem"} & set(fields)
    return named | {name for item in fields.get("EosItem", ()) for name in item if name[:2] == "dt"}


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    centre = Centre(settings)
    service = soap.SoapService(
        "/cssi", {"Ukios": centre.send_ukio}, wsdl=contract.WSDL.read_bytes(), bytes_max=BYTES_MAX
    )

    async def drive(request: Request) -> Response:
        try:
            centre.drive = decode(await read_body(request, BYTES_MAX), Drive)
        except BadInput as bad:
            return Response(bad.sentence, 400)
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        report: dict[str, Any] = {
            "entries": centre.ledger.entries,
            "repeats": centre.ledger.repeats,
            "requests": centre.requests,
            "living": 0,
        }
        return Response(msgspec.json.encode(report), media_type="application/json")

    routes = [service.route(), Route("/drive", drive, methods=["POST"]), Route("/ledger", ledger)]
    return FaultyApp(Starlette(routes=routes), settings.faults)
