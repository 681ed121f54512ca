"""ВИМИС played by a program: takes documents, looks at them, calls back.

POST /receiver  sendDocument, checkStatus; the same document again has the same number
POST /drive     {"status": 5, "silent": true, "twice": true, "early": true}: the next verdict; no
                callback; two; the first before the answer
GET  /ledger    documents; POST /faults   switches of connectors.simulators.kit.faults
"""

import asyncio
from typing import Any, Final

import msgspec
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.vimis import contract
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.runtime.markup import soap, xml
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import Courier, SimulatorSettings, closing, spawn

BYTES_MAX: Final = 8 * 1024 * 1024


class Drive(msgspec.Struct, kw_only=True):
    """How ВИМИС is to behave from now on."""

    status: int = 1
    silent: bool = False
    twice: bool = False
    early: bool = False


class Vimis:
    """The state of the simulated ВИМИС."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger)
        self.courier = Courier(settings)
        self.drive = Drive()
        self.verdicts: dict[str, int] = {}
        self.wrong: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def send_document(self, call: soap.Call) -> xml.Element:
        """Take a document; one that is there already keeps its number."""
        given = xml.read(call.body, contract.SendDocument)
        root = xml.parse(given.document)
        number = root.find("{urn:hl7-org:v3}id")
        if number is None or given.vmcl != 4:
            raise BadInput("document", "is not of this system")
        key = f"{number.get('extension')}/{given.vmcl}/{given.doc_type_version}"
        known = self.ledger.answer_of(key)
        msg_id = known[1] if known else f"V-{len(self.ledger.entries) + 1}"
        if known is None:
            self.ledger.record(key, {"doc_type": given.doc_type, "msg_id": msg_id}, 200, msg_id)
        self.verdicts[msg_id] = self.drive.status
        if not self.drive.silent:
            self._later(self._tell(msg_id))
            if self.drive.early:  # nobody here knows the number yet: it is told again later
                await asyncio.sleep(2 * self.settings.pace_s)
        return self._answer("returnMsgId", contract.MessageId(msg_id))

    async def check_status(self, call: soap.Call) -> xml.Element:
        """Say what has become of a document."""
        asked = xml.read(call.body, contract.MessageId)
        status = self.verdicts.get(asked.msg_id, 0)
        return self._answer("returnStatus", contract.Status(status, "checked"))

    @staticmethod
    def _answer(name: str, value: msgspec.Struct) -> xml.Element:
        root = etree.Element(f"{{{contract.SERVICE}}}{name}", nsmap={"v": contract.SERVICE})
        xml.write(root, value, None)
        return root

    async def _tell(self, msg_id: str) -> None:
        await asyncio.sleep(self.settings.pace_s)
        result = contract.Result(msg_id, self.verdicts[msg_id], "checked")
        namespace = contract.CALLBACK
        for _ in range(2 if self.drive.twice else 1):
            root = etree.Element(f"{{{namespace}}}sendResult", nsmap={"c": namespace})
            xml.write(root, result, None)
            answer = await self.courier.bring("POST", "/vimis", soap.envelope(root))
            if answer.status >= 300:
                self.wrong.append(msg_id)

    def _later(self, work: Any) -> None:
        spawn(self.tasks, work)

    def report(self) -> dict[str, Any]:
        """Return documents and counters."""
        return {
            "entries": self.ledger.entries,
            "repeats": self.ledger.repeats,
            "wrong": self.wrong,
            "living": len(self.tasks),
        }


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    vimis = Vimis(settings)
    service = soap.SoapService(
        "/receiver",
        {"sendDocument": vimis.send_document, "checkStatus": vimis.check_status},
        wsdl=contract.WSDL.read_bytes(),
        bytes_max=BYTES_MAX,
    )

    async def drive(request: Request) -> Response:
        try:
            vimis.drive = decode(await read_body(request, BYTES_MAX), Drive)
        except BadInput as bad:
            return Response(bad.sentence, 400)
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode(vimis.report()), media_type="application/json")

    routes = [service.route(), Route("/drive", drive, methods=["POST"]), Route("/ledger", ledger)]
    lifespan = closing(vimis.tasks, vimis.courier)
    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)
