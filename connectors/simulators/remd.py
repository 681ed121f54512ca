"""РЭМД played by a program: takes documents, asks for their files, checks them, calls back.

POST /emdr     registerDocument; a document is one entry of the ledger, however often it comes
POST /drive    {"reject": CODE, "times": N, "twice": true, "early": true}: refuse the next N with a
               code; call back twice; call back before the answer
GET  /ledger   documents; POST /faults   switches of connectors.simulators.kit.faults
"""

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.remd import contract
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.runtime.markup import soap, xml
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import Courier, SimulatorSettings, closing, spawn

BYTES_MAX: Final = 8 * 1024 * 1024


class Drive(msgspec.Struct, kw_only=True):
    """How the register is to behave from now on; `sync` refuses in the answer itself."""

    reject: str = ""
    times: int = 0
    sync: bool = False
    twice: bool = False
    early: bool = False


class Register:
    """The state of the simulated register."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger)
        self.courier = Courier(settings)
        self.drive = Drive()
        self.requests = 0
        self.wrong: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def register(self, call: soap.Call) -> xml.Element:
        """Take a document: the coarse check."""
        asked = xml.read(call.body, contract.RegisterDocument)
        if not contract.message_of(call.header):
            raise BadInput("Header.MessageID", "is required")
        self.requests += 1
        if self.drive.sync and self._refuses():
            return self._answer(asked, "error")
        work = self._check(asked, contract.message_of(call.header))
        if self.drive.early:
            await work
        else:
            self._later(work)
        return self._answer(asked, "success")

    def _answer(self, asked: contract.RegisterDocument, status: Any) -> xml.Element:
        errors = None
        if status == "error":
            errors = contract.Errors(item=[contract.ErrorItem(code=self.drive.reject)])
        told = contract.Accepted(status=status, local_uid=asked.local_uid, errors=errors)
        return contract.element("registerDocumentResponse", told)

    def _refuses(self) -> bool:
        if not self.drive.reject or self.drive.times <= 0:
            return False
        self.drive.times -= 1
        return True

    async def _check(self, asked: contract.RegisterDocument, message: str) -> None:
        """The full check: ask for the file, look at it, call back."""
        result = contract.RegisterResult(
            relates_to_message=message, local_uid=asked.local_uid, status="error"
        )
        if not self.drive.sync and self._refuses():
            errors = contract.Errors(item=[contract.ErrorItem(code=self.drive.reject)])
            await self._call_back(msgspec.structs.replace(result, errors=errors))
            return
        wrong = await self._file_problem(asked)
        # Another exchange may have registered it meanwhile: then the file is out of reach.
        if wrong and self.ledger.answer_of(asked.local_uid) is None:
            self.wrong.append(wrong)
            errors = contract.Errors(item=[contract.ErrorItem(code="DIGEST_MISMATCH")])
            await self._call_back(msgspec.structs.replace(result, errors=errors))
            return
        known = self.ledger.answer_of(asked.local_uid)
        emdr_id = known[1] if known else f"99.26.11.{len(self.ledger.entries) + 1:09d}"
        if known is None:
            entry = {
                "kind": asked.kind,
                "number": asked.document_number,
                "version": asked.document_version,
                "patient_known": bool(asked.patient and asked.patient.surname),
                "emdr_id": emdr_id,
            }
            self.ledger.record(asked.local_uid, entry, 200, emdr_id)
        item = contract.RegistryItem(emdr_id=emdr_id, registration_date_time=datetime.now(UTC))
        done = msgspec.structs.replace(result, status="success", registry_item=item)
        await self._call_back(done)

    async def _file_problem(self, asked: contract.RegisterDocument) -> str:
        ask = contract.GetDocumentFile(local_uid=asked.local_uid)
        answer = await self._bring("getDocumentFileRequest", ask, contract.SERVICE)
        try:
            file = xml.read(soap.read_envelope(answer).body, contract.DocumentFile)
            xml.parse(file.content)
        except BadInput as bad:
            return bad.sentence
        digest = hashlib.sha256(file.content).hexdigest()
        if not digest == file.checksum == asked.checksum or not file.signature:
            return "digest"
        return ""

    async def _call_back(self, result: contract.RegisterResult) -> None:
        for _ in range(2 if self.drive.twice else 1):
            name = "sendRegisterDocumentResultRequest"
            answer = await self._bring(name, result, contract.CALLBACK)
            if xml.local(soap.read_envelope(answer).body) == "Fault":
                self.wrong.append("callback refused")

    async def _bring(self, name: str, value: contract.Shape, namespace: str) -> bytes:
        body = soap.envelope(contract.element(name, value, namespace), soap=soap.SOAP12)
        return (await self.courier.bring("POST", "/remd", body)).body

    def _later(self, work: Any) -> None:
        async def run() -> None:
            try:
                await asyncio.sleep(self.settings.pace_s)
            except asyncio.CancelledError:
                work.close()  # it will not be done any more
                raise
            await work

        spawn(self.tasks, run())

    def report(self) -> dict[str, Any]:
        """Return documents and counters."""
        return {
            "entries": self.ledger.entries,
            "repeats": self.ledger.repeats,
            "requests": self.requests,
            "wrong": self.wrong,
            "living": len(self.tasks),
        }


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    register = Register(settings)
    service = soap.SoapService(
        "/emdr",
        {"registerDocumentRequest": register.register},
        bytes_max=BYTES_MAX,
        understands=(contract.ADDRESSING, contract.TRANSPORT),
    )

    async def drive(request: Request) -> Response:
        try:
            register.drive = decode(await read_body(request, BYTES_MAX), Drive)
        except BadInput as bad:
            return Response(bad.sentence, 400)
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode(register.report()), media_type="application/json")

    routes = [service.route(), Route("/drive", drive, methods=["POST"]), Route("/ledger", ledger)]
    lifespan = closing(register.tasks, register.courier)
    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)
